"""Mamba: layers of S6 alone, without MLPs; embedding and logits share a table of 50,280 rows, 50,277 padded by eights.

Source: Gu & Dao 2023, arXiv:2312.00752, table 12; checkpoints state-spaces/mamba-130m … mamba-2.8b.
"""

from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  depth: int,
  state: int = 16,
  expand: int = 2,
  taps: int = 4,
  dt_rank: int | None = None,
  bias: bool = False,
  conv_bias: bool = True,
  norms: str = "none",
  norm_eps: float = 1e-5,
  tie: bool = True,
  **more: Any,
) -> dict[str, Any]:
  """Returns the sections of a stack of `depth` Mamba layers; `more` are further fields of these."""
  mamba = dict(
    name="mamba", state=state, expand=expand, taps=taps, dt_rank=dt_rank, bias=bias, conv_bias=conv_bias, norms=norms
  )
  return language_model(
    width=width, pattern="m", depth=depth, letters={"m": mamba | more}, norm_eps=norm_eps, head=dict(tie=tie)
  )


RECIPES = {
  "mamba_130m": Recipe(model, dict(width=768, depth=24), 129_135_360, vocab=50_280),
  "mamba_370m": Recipe(model, dict(width=1024, depth=48), 371_516_416, vocab=50_280),
  "mamba_790m": Recipe(model, dict(width=1536, depth=48), 793_204_224, vocab=50_280),
  "mamba_1.4b": Recipe(model, dict(width=2048, depth=48), 1_372_178_432, vocab=50_280),
  "mamba_2.8b": Recipe(model, dict(width=2560, depth=64), 2_768_345_600, vocab=50_280),
  "mamba_toy": Recipe(model, dict(width=8, depth=2, state=2), vocab=256),
}
