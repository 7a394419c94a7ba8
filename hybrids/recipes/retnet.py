"""RetNet: multi-scale retention and an MLP without a gate, half as wide as usual, since retention has wide values.

The vocabulary is not published; 50,257 tokens of GPT-2 stand in for it, with one table.

Source: Sun et al. 2023, arXiv:2307.08621, table 2.
"""

from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *, width: int, depth: int, heads: int, inner: int | None = None, norm_eps: float = 1e-6, tie: bool = True
) -> dict[str, Any]:
  """Returns the sections of RetNet with `depth` blocks; `inner` channels of the MLP are twice the width by default."""
  return language_model(
    width=width,
    pattern="r-",
    depth=2 * depth,
    letters={"r": dict(name="retnet", heads=heads), "-": dict(name="mlp", inner=inner or 2 * width)},
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


NOMINAL: dict[str, Any] = dict(within=0.05, vocab=50_257)

RECIPES = {
  "retnet_1.3b": Recipe(model, dict(width=2048, depth=24, heads=8), 1_300_000_000, **NOMINAL),
  "retnet_2.7b": Recipe(model, dict(width=2560, depth=32, heads=10), 2_700_000_000, **NOMINAL),
  "retnet_6.7b": Recipe(model, dict(width=4096, depth=32, heads=16), 6_700_000_000, **NOMINAL),
  "retnet_toy": Recipe(model, dict(width=8, depth=2, heads=2), vocab=256),
}
