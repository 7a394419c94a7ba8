"""Titans: attention with a neural memory as context (mac), as a gate (mag) or as a layer (mal), then gated MLPs.

There is no official code, and the paper gives sizes by their numbers of parameters alone: width, depth and the
32,000 tokens in one table are ours, made to fit.

Source: Behrouz, Zhong & Mirrokni 2025, arXiv:2501.00663, sec. 5 (170M, 340M, 400M and 760M).
"""

from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  arrangement: str,
  width: int,
  depth: int,
  heads: int,
  inner: int,
  segment: int = 128,
  window: int = 256,
  persistent: int = 4,
  memory: dict[str, Any] | None = None,
  norm_eps: float = 1e-5,
  tie: bool = True,
) -> dict[str, Any]:
  """Returns the sections of `depth` blocks.

  Args:
    arrangement: "mac", "mag" or "mal".
    segment, window: tokens that attention sees, the former with "mac".
    memory: fields of `titans`.
  """
  reach = dict(segment=segment) if arrangement == "mac" else dict(window=window)
  titans = dict(name=f"titans_{arrangement}", heads=heads, persistent=persistent, memory=memory or {}, **reach)
  return language_model(
    width=width,
    pattern="t-",
    depth=2 * depth,
    letters={"t": titans, "-": dict(name="gated_mlp", inner=inner)},
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


BASE: dict[str, Any] = dict(width=768, depth=10, heads=12, inner=2048)
TOY: dict[str, Any] = dict(width=8, depth=2, heads=2, inner=12, persistent=1, segment=3, window=3)

RECIPES = {
  f"titans_{kind}_{size}": recipe
  for kind in ("mac", "mag", "mal")
  for size, recipe in {
    "170m": Recipe(model, dict(BASE, arrangement=kind), 170_000_000, within=0.03, vocab=32_000, length=4096),
    "toy": Recipe(model, dict(TOY, arrangement=kind), vocab=256),
  }.items()
}
