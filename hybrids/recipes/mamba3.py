"""Mamba-3 and gated MLPs by turns, as in Llama.

The paper's sizes are nominal; the sizes of layers below are ours, with its vocabulary, that of Llama 3, in one table.

Source: Lahoti et al. 2026, arXiv:2603.15569, sec. 4.
"""

from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  depth: int,
  inner: int,
  state: int = 128,
  head_size: int = 64,
  rank: int = 1,
  rope_fraction: float = 0.5,
  norm_eps: float = 1e-5,
  tie: bool = True,
) -> dict[str, Any]:
  """Returns the sections of `depth` blocks of Mamba-3, of `rank` inputs and outputs (MIMO above 1), and an MLP."""
  mamba3 = dict(name="mamba3", state=state, head_size=head_size, rank=rank, rope_fraction=rope_fraction)
  return language_model(
    width=width,
    pattern="m-",
    depth=2 * depth,
    letters={"m": mamba3, "-": dict(name="gated_mlp", inner=inner)},
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


RECIPES = {
  "mamba3_180m": Recipe(model, dict(width=768, depth=12, inner=1536), 180_000_000, within=0.1, vocab=128_256),
  "mamba3_440m": Recipe(model, dict(width=1024, depth=24, inner=2048), 440_000_000, within=0.1, vocab=128_256),
  "mamba3_880m": Recipe(model, dict(width=1536, depth=24, inner=3072), 880_000_000, within=0.1, vocab=128_256),
  "mamba3_1.5b": Recipe(model, dict(width=2048, depth=24, inner=4096), 1_500_000_000, within=0.1, vocab=128_256),
  "mamba3_toy": Recipe(model, dict(width=8, depth=2, inner=12, state=4, head_size=4), vocab=256),
}
