"""Mamba-2: layers of SSD alone; embedding and logits share a table of 50,288 rows, 50,277 padded by sixteens.

Source: Dao & Gu 2024, arXiv:2405.21060, sec. 9.2; checkpoints state-spaces/mamba2-130m … mamba2-2.7b.
"""

import math
from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  depth: int,
  state: int = 128,
  expand: int = 2,
  head_size: int = 64,
  groups: int = 1,
  taps: int = 4,
  bias: bool = False,
  conv_bias: bool = True,
  dt_least: float = 0.0,
  dt_most: float = math.inf,
  norm_eps: float = 1e-5,
  tie: bool = True,
  **more: Any,
) -> dict[str, Any]:
  """Returns the sections of a stack of `depth` Mamba-2 layers; `more` are further fields of these."""
  mamba2 = dict(
    name="mamba2",
    state=state,
    expand=expand,
    head_size=head_size,
    groups=groups,
    taps=taps,
    bias=bias,
    conv_bias=conv_bias,
    dt_least=dt_least,
    dt_most=dt_most,
    norm_eps=norm_eps,
  )
  return language_model(
    width=width, pattern="m", depth=depth, letters={"m": mamba2 | more}, norm_eps=norm_eps, head=dict(tie=tie)
  )


RECIPES = {
  "mamba2_130m": Recipe(model, dict(width=768, depth=24), 128_989_632, vocab=50_288),
  "mamba2_370m": Recipe(model, dict(width=1024, depth=48), 368_346_624, vocab=50_288),
  "mamba2_780m": Recipe(model, dict(width=1536, depth=48), 780_000_000, within=0.02, vocab=50_288),
  "mamba2_1.3b": Recipe(model, dict(width=2048, depth=48), 1_343_757_312, vocab=50_288),
  "mamba2_2.7b": Recipe(model, dict(width=2560, depth=64), 2_702_599_680, vocab=50_288),
  "mamba2_toy": Recipe(model, dict(width=8, depth=2, state=2, head_size=4), vocab=256),
}
