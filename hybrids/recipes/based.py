"""Based: gated short convolutions in most layers, Taylor's linear attention and attention over a window in others.

Each layer is followed by a gated MLP; 50,257 tokens of GPT-2 have a table padded by eights.

Source: Arora et al. 2024, arXiv:2402.18668; HazyResearch/based, train/configs/experiment/reference/based-360m.yaml and
based-1b.yaml.
"""

from collections.abc import Sequence
from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  depth: int,
  linear: Sequence[int],
  window: Sequence[int],
  heads: int = 16,
  key_size: int = 16,
  reach: int = 256,
  inner: int | None = None,
  norm_eps: float = 1e-5,
  tie: bool = True,
) -> dict[str, Any]:
  """Returns the sections of `depth` layers, counted from 0.

  Args:
    linear, window: the layers that have linear attention, and attention over a window of `reach` tokens.
    inner: channels of the MLPs; twice the width if not given.
  """
  letters = ["b" if layer in linear else "a" if layer in window else "c" for layer in range(depth)]
  return language_model(
    width=width,
    pattern="".join(letter + "-" for letter in letters),
    letters={
      "c": dict(name="base_conv"),
      "b": dict(name="based", heads=heads, key_size=key_size),
      "a": dict(name="softmax", heads=heads, window=reach, position="rope"),
      "-": dict(name="gated_mlp", inner=inner or 2 * width),
    },
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


RECIPES = {
  "based_360m": Recipe(
    model,
    dict(width=1024, depth=27, linear=(1, 6, 11, 16, 21), window=(2, 7, 12, 17, 22)),
    360_000_000,
    within=0.02,
    vocab=50_264,
  ),
  "based_1.3b": Recipe(
    model,
    dict(width=1792, depth=36, linear=(1, 6, 11, 16, 21, 27, 33), window=(2, 7, 12, 17, 22, 28, 34)),
    1_300_000_000,
    within=0.05,
    vocab=50_264,
  ),
  "based_toy": Recipe(
    model, dict(width=8, depth=3, linear=(1,), window=(2,), heads=2, key_size=2, reach=3, inner=12), vocab=256
  ),
}
