"""MiniMax-01: lightning attention with softmax attention in every eighth layer, each followed by experts.

The sum of a branch keeps the normed input: n = norm(x), then α n + β f(n).

Source: MiniMax 2025, arXiv:2501.08313, and checkpoint MiniMaxAI/MiniMax-Text-01.
"""

from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  depth: int,
  heads: int,
  kv_heads: int,
  inner: int,
  experts: int,
  top_k: int = 2,
  head_size: int | None = None,
  pattern: str = "llllllla",
  linear: tuple[float, float] = (1.0, 1.0),
  full: tuple[float, float] = (1.0, 1.0),
  channel: tuple[float, float] = (1.0, 1.0),
  rotary: float = 0.5,
  theta: float = 1e7,
  scaling: dict[str, Any] | None = None,
  balance: float = 0.001,
  norm_eps: float = 1e-5,
  tie: bool = False,
) -> dict[str, Any]:
  """Returns the sections of `depth` layers by the letters of `pattern`, l for lightning and a for softmax attention.

  Args:
    linear, full, channel: α and β of lightning attention, softmax attention and the experts.
  """
  lightning = dict(name="lightning", heads=heads, head_size=head_size)
  turns = dict(position="rope", rotary=rotary, theta=theta, scaling=scaling)
  attention = dict(name="softmax", heads=heads, kv_heads=kv_heads, head_size=head_size, **turns)
  moe = dict(name="moe", experts=experts, top_k=top_k, inner=inner, renormalize=True, balance=balance)
  letters = {"l": (lightning, linear), "a": (attention, full), "e": (moe, channel)}
  return language_model(
    width=width,
    pattern="".join(letter + "e" for letter in pattern),
    depth=2 * depth,
    letters={name: dict(mixer=mixer, skip=skip, scale=scale) for name, (mixer, (skip, scale)) in letters.items()},
    norm_eps=norm_eps,
    branch=dict(norm_position="input"),
    head=dict(tie=tie),
  )


# α of all branches; β is 1
ALPHA = (3.5565588200778455, 1.0)

RECIPES = {
  "minimax_text_01": Recipe(
    model,
    dict(
      width=6144,
      depth=80,
      heads=64,
      kv_heads=8,
      head_size=128,
      inner=9216,
      experts=32,
      linear=ALPHA,
      full=ALPHA,
      channel=ALPHA,
    ),
    456_000_000_000,
    45_900_000_000,
    within=0.005,
    vocab=200_064,
    length=8192,
  ),
  "minimax_toy": Recipe(
    model,
    dict(width=8, depth=2, heads=2, kv_heads=1, inner=4, experts=3, pattern="la"),
    vocab=256,
  ),
}
