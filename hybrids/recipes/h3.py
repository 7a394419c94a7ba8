"""H3 and its hybrid, which has attention in a few layers; each layer is followed by an MLP as in GPT-2.

The sizes are those of GPT-3's first models, with heads of size 8; 50,257 tokens of GPT-2 in a table padded by eights.
All released checkpoints are hybrids.

Source: Fu et al. 2022, arXiv:2212.14052, sec. 5; HazyResearch/H3, examples/README.md (which layers have attention).
"""

from collections.abc import Sequence
from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  depth: int,
  heads: int = 1,
  attention: Sequence[int] = (),
  state: int = 64,
  head_dim: int = 8,
  inner: int | None = None,
  norm_eps: float = 1e-5,
  tie: bool = True,
) -> dict[str, Any]:
  """Returns the sections of `depth` layers, of which those numbered in `attention`, counted from 0, have attention.

  Args:
    heads: of attention; `head_dim` is the size of H3's.
  """
  letters = "".join("a-" if layer in attention else "h-" for layer in range(depth))
  return language_model(
    width=width,
    pattern=letters,
    letters={
      "h": dict(name="h3", state=state, head_dim=head_dim),
      "a": dict(name="softmax", heads=heads, bias="all"),
      "-": dict(name="mlp", inner=inner or 4 * width, bias=True),
    },
    norm="layer",
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


TEXT: dict[str, Any] = dict(within=0.03, vocab=50_264)
SIZES = {
  "125m": (dict(width=768, depth=12), dict(heads=12, attention=(6,)), 125_000_000),
  "355m": (dict(width=1024, depth=24), dict(heads=16, attention=(8, 16)), 355_000_000),
  "1.3b": (dict(width=2048, depth=24), dict(heads=16, attention=(8, 16)), 1_300_000_000),
  "2.7b": (dict(width=2560, depth=32), dict(heads=20, attention=(8, 16, 24)), 2_700_000_000),
}

RECIPES = {
  **{f"h3_{size}": Recipe(model, shape, number, **TEXT) for size, (shape, _, number) in SIZES.items()},
  **{
    f"h3_hybrid_{size}": Recipe(model, shape | attention, number, **TEXT)
    for size, (shape, attention, number) in SIZES.items()
  },
  "h3_toy": Recipe(model, dict(width=8, depth=2, state=4, head_dim=2, heads=2, attention=(1,)), vocab=256),
}
