"""Hyena for text, and HyenaDNA: operators of order 2 and MLPs by turns.

Text has a table of 50,257 rows padded by eights, and DNA one of 16: four bases, N and special tokens, padded by eights.

Source: Poli et al. 2023, arXiv:2302.10866, app. A and HazyResearch/safari, configs/experiment/pile; Nguyen et al. 2023,
arXiv:2306.15794, table A.1, and checkpoints LongSafari/hyenadna-tiny-1k … hyenadna-large-1m.
"""

from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  depth: int,
  max_len: int,
  inner: int,
  order: int = 2,
  filter_width: int = 64,
  features: int = 33,
  frequency: float = 14.0,
  norm_eps: float = 1e-5,
  tie: bool = True,
) -> dict[str, Any]:
  """Returns the sections of `depth` blocks of an operator whose filters end at `max_len`, and an MLP."""
  hyena = dict(
    name="hyena",
    order=order,
    max_len=max_len,
    filter_width=filter_width,
    features=features,
    frequency=frequency,
  )
  return language_model(
    width=width,
    pattern="h-",
    depth=2 * depth,
    letters={"h": hyena, "-": dict(name="mlp", inner=inner, bias=True)},
    norm="layer",
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


def dna(width: int, depth: int, max_len: int) -> dict[str, Any]:
  """Returns the arguments of a HyenaDNA."""
  # two tokens more than a sequence has, for its ends
  return dict(width=width, depth=depth, max_len=max_len + 2, inner=4 * width, features=5, frequency=10.0)


RECIPES = {
  "hyena_153m": Recipe(
    model, dict(width=864, depth=18, max_len=2048, inner=1728), 153_000_000, within=0.02, vocab=50_264
  ),
  "hyena_toy": Recipe(
    model, dict(width=8, depth=2, max_len=16, inner=12, filter_width=4, features=3), vocab=256, length=16
  ),
  "hyena_dna_tiny-1k": Recipe(model, dna(128, 2, 1024), 436_000, within=0.01, vocab=16, length=1024),
  "hyena_dna_small-32k": Recipe(model, dna(256, 4, 32_768), 3_300_000, within=0.02, vocab=16, length=32_768),
  "hyena_dna_medium-160k": Recipe(model, dna(256, 8, 160_000), 6_550_000, within=0.02, vocab=16, length=160_000),
  "hyena_dna_medium-450k": Recipe(model, dna(256, 8, 450_000), 6_550_000, within=0.02, vocab=16, length=450_000),
  "hyena_dna_large-1m": Recipe(model, dna(256, 8, 1_000_000), 6_550_000, within=0.02, vocab=16, length=1_000_000),
  "hyena_dna_toy": Recipe(model, dict(dna(8, 2, 14), filter_width=4, features=3), vocab=16, length=14),
}
