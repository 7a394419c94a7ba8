"""Qwen3-Next and Qwen3.5: three layers of gated delta nets for each of gated attention; then experts or an MLP.

Source: Yang, Kautz & Hatamizadeh 2025, arXiv:2412.06464 (the delta net); Qiu et al. 2025, arXiv:2505.06708 (the gate of
attention); checkpoint Qwen/Qwen3-Next-80B-A3B-Instruct.
"""

from collections.abc import Mapping
from typing import Any

from flax.core import FrozenDict

from hybrids.recipes.recipe import language_model


def model(
  *,
  width: int,
  pattern: str,
  delta: Mapping[str, Any],
  attention: Mapping[str, Any],
  experts: Mapping[str, Any] = FrozenDict(),
  inner: int,
  norm_eps: float = 1e-6,
  tie: bool = False,
) -> dict[str, Any]:
  """Returns the sections of a stack by a pattern of d, delta nets, a, attention, - an MLP, and e, experts.

  Args:
    delta, attention, experts: fields of these mixers.
    inner: channels of the MLP.
  """
  gated = dict(name="softmax", gate="entry", qk_norm="head", norm_eps=norm_eps, position="rope")
  return language_model(
    width=width,
    pattern=pattern,
    letters={
      "d": dict(name="gated_delta_net", norm_eps=norm_eps, **delta),
      "a": gated | dict(attention),
      "-": dict(name="gated_mlp", inner=inner),
      "e": dict(name="moe", shared_gate=True, **experts),
    },
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )
