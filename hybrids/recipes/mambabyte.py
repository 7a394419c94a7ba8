"""MambaByte: Mamba on bytes, without a tokenizer.

Departs: the paper rounds its sizes to millions.

Source: Wang et al. 2024, arXiv:2401.13660, table 1: 53 layers of width 1024, 48 of width 1792.
"""

from typing import Any

from hybrids.recipes import mamba
from hybrids.recipes.recipe import Recipe

BYTES: dict[str, Any] = dict(vocab=256, length=8192, within=0.02)

RECIPES = {
  "mambabyte_353m": Recipe(mamba.model, dict(width=1024, depth=53), 353_000_000, **BYTES),
  "mambabyte_972m": Recipe(mamba.model, dict(width=1792, depth=48), 972_000_000, **BYTES),
  "mambabyte_toy": Recipe(mamba.model, dict(width=8, depth=2, state=2), vocab=256),
}
