"""Lara Mini: gated delta nets, attention over a window of 512, in a layer of five over everything; then experts.

Only attention over the window has positions.

Source: the defaults of transformers 5.24, model type lara_mini; the delta net is arXiv:2412.06464.
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
  experts: Mapping[str, Any],
  window: int = 512,
  turns: Mapping[str, Any] = FrozenDict(position="rope"),
  norm_eps: float = 1e-6,
  tie: bool = True,
) -> dict[str, Any]:
  """Returns the sections of a layer for each letter, d delta nets, w attention over a window, a attention, and experts.

  Args:
    delta, attention, experts: fields of these mixers.
    turns: fields of attention over the window alone, those of its positions.
  """
  softmax = dict(name="softmax", qk_norm="head", norm_eps=norm_eps) | dict(attention)
  return language_model(
    width=width,
    pattern="".join(letter + "e" for letter in pattern),
    letters={
      "d": dict(name="gated_delta_net", norm_eps=norm_eps, **delta),
      "w": dict(softmax, window=window, **turns),
      "a": dict(softmax, position="none"),
      "e": dict(name="moe", renormalize=True) | dict(experts),
    },
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


RECIPES = {
  "lara_mini_7b": Recipe(
    model,
    dict(
      width=1024,
      pattern="dwda" + "wdwda" * 6,
      delta=dict(heads=8, head_size=128, value_heads=16, expand_v=1.0),
      attention=dict(heads=16, kv_heads=4, head_size=128),
      experts=dict(experts=128, top_k=4, inner=512, shared=512),
    ),
    7_281_684_672,
    vocab=151_936,
    length=4096,
  ),
  "lara_mini_toy": Recipe(
    model,
    dict(
      width=8,
      pattern="dwa",
      delta=dict(heads=1, head_size=4, value_heads=2, expand_v=1.0),
      attention=dict(heads=2, kv_heads=1, head_size=4),
      experts=dict(experts=3, top_k=2, inner=4, shared=4),
      window=3,
    ),
    vocab=256,
  ),
}
