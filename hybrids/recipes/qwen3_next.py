"""Qwen3-Next and Qwen3.5: three layers of gated delta nets for each of gated attention; then experts or an MLP.

Source: Yang, Kautz & Hatamizadeh 2025, arXiv:2412.06464 (the delta net); Qiu et al. 2025, arXiv:2505.06708 (the gate of
attention); checkpoint Qwen/Qwen3-Next-80B-A3B-Instruct; Qwen3.5 by the defaults of transformers 5.24.
"""

from collections.abc import Mapping
from typing import Any

from flax.core import FrozenDict

from hybrids.recipes.recipe import Recipe, language_model


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


DELTA: dict[str, Any] = dict(heads=16, head_size=128, value_heads=32, expand_v=1.0)
ATTENTION: dict[str, Any] = dict(heads=16, kv_heads=2, head_size=256, rotary=0.25)
TOY: dict[str, Any] = dict(
  width=8,
  delta=dict(heads=1, head_size=4, value_heads=2, expand_v=1.0),
  attention=dict(heads=2, kv_heads=1, head_size=8, rotary=0.25),
  inner=12,
)

RECIPES = {
  "qwen3_next_80b": Recipe(
    model,
    dict(
      width=2048,
      pattern="dededeae" * 12,
      delta=DELTA,
      attention=dict(ATTENTION, theta=1e7),
      experts=dict(experts=512, top_k=10, inner=512, shared=512, renormalize=True),
      inner=5632,
    ),
    79_674_391_296,
    3_900_000_000,
    vocab=151_936,
    length=4096,
  ),
  "qwen3_next_toy": Recipe(
    model, dict(TOY, pattern="deae", experts=dict(experts=3, top_k=2, inner=4, shared=4)), vocab=256
  ),
  "qwen3_5_9b": Recipe(
    model,
    dict(
      width=4096,
      pattern="d-d-d-a-" * 8,
      delta=DELTA,
      attention=dict(ATTENTION, kv_heads=4, theta=1e7),
      inner=12_288,
    ),
    8_953_803_264,
    vocab=248_320,
    length=4096,
  ),
  "qwen3_5_35b": Recipe(
    model,
    dict(
      width=2048,
      pattern="dededeae" * 10,
      delta=DELTA,
      attention=dict(ATTENTION, theta=1e7),
      experts=dict(experts=256, top_k=8, inner=512, shared=512, renormalize=True),
      inner=5632,
    ),
    34_660_610_688,
    3_500_000_000,
    vocab=248_320,
    length=4096,
  ),
  "qwen3_5_toy": Recipe(model, dict(TOY, pattern="d-a-"), vocab=256),
}
