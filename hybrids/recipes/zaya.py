"""ZAYA1: compressed convolutional attention and experts, one for each token, whose routers hand a vector on.

One more expert does nothing. What a branch adds and what it adds to are scaled by channel, and so is the embedding.

Source: the defaults of transformers 5.24, model type zaya, and the model card of Zyphra/ZAYA1-8B, whose number of
active parameters leaves out the table; the attention is arXiv:2510.04476. The number of all parameters is that of
transformers, whose first router has no scale for the vector that it does not get.
"""

from collections.abc import Mapping
from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  pattern: str,
  attention: Mapping[str, Any],
  experts: Mapping[str, Any],
  theta: float = 5e6,
  window: Mapping[str, Any] | None = None,
  norm_eps: float = 1e-5,
  tie: bool = True,
) -> dict[str, Any]:
  """Returns the sections of a layer for each letter, a attention, w attention over a window, each with experts.

  Args:
    attention, experts: fields of these mixers.
    theta: of the positions of `a`.
    window: further fields of `w`: its window and its own theta.
  """
  cca = dict(name="cca", theta=theta, rotary=0.5) | dict(attention)
  moe = dict(name="moe", top_k=1, selection_bias=True, skip_expert=True, norm_eps=norm_eps, balance=0.0)
  return language_model(
    width=width,
    pattern="".join(letter + "e" for letter in pattern),
    letters={"a": cca, "w": cca | dict(window or {}), "e": moe | dict(experts)},
    norm_eps=norm_eps,
    branch=dict(scaled=True),
    embed=dict(scaled=True),
    head=dict(tie=tie),
  )


RECIPES = {
  "zaya1_8b": Recipe(
    model,
    dict(
      width=2048,
      pattern="a" * 40,
      attention=dict(heads=8, kv_heads=2, head_size=128),
      experts=dict(experts=16, inner=2048, router_size=256),
    ),
    8_840_488_784,
    760_000_000,
    within=1e-6,
    vocab=262_272,
    length=4096,
  ),
  "zaya_toy": Recipe(
    model,
    dict(
      width=8,
      pattern="aw",
      attention=dict(heads=2, kv_heads=1, head_size=4),
      experts=dict(experts=3, inner=4, router_size=4),
      window=dict(window=3, theta=1e4),
    ),
    vocab=256,
  ),
}
