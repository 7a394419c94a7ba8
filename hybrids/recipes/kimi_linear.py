"""Kimi Linear: three layers of Kimi delta attention for each of latent attention, without positions; then experts.

Source: Kimi Team 2025, arXiv:2510.26692, and checkpoint moonshotai/Kimi-Linear-48B-A3B-Base.
"""

from collections.abc import Mapping
from typing import Any

from hybrids.recipes.recipe import language_model


def model(
  *,
  width: int,
  pattern: str,
  delta: Mapping[str, Any],
  latent: Mapping[str, Any],
  experts: Mapping[str, Any],
  inner: int,
  norm_eps: float = 1e-5,
  tie: bool = False,
) -> dict[str, Any]:
  """Returns the sections of a stack by a pattern of k, delta attention, a, latent attention, - an MLP, and e, experts.

  Args:
    delta, latent, experts: fields of these mixers.
    inner: channels of the MLP.
  """
  moe = dict(name="moe", scores="sigmoid", selection_bias=True, renormalize=True, renormalize_eps=1e-20, balance=0.0)
  return language_model(
    width=width,
    pattern=pattern,
    letters={
      "k": dict(name="kda", norm_eps=norm_eps, **delta),
      "a": dict(name="mla", position="none", **latent),
      "-": dict(name="gated_mlp", inner=inner),
      "e": moe | dict(experts),
    },
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )
