"""Falcon Mamba: Mamba whose steps, input maps and output maps pass RMS norms without weights; its tables are untied.

Source: Zuo et al. 2024, arXiv:2410.05355; checkpoint tiiuae/falcon-mamba-7b.
"""

from typing import Any

from hybrids.recipes import mamba
from hybrids.recipes.recipe import Recipe


def model(**fields: Any) -> dict[str, Any]:
  """Returns the sections of Falcon Mamba; the fields are those of `mamba.model`."""
  return mamba.model(**{"norms": "weightless", "tie": False, **fields})


RECIPES = {
  "falcon_mamba_7b": Recipe(model, dict(width=4096, depth=64), 7_272_665_088, vocab=65_024, length=8192),
  "falcon_mamba_toy": Recipe(model, dict(width=8, depth=2, state=2), vocab=256),
}
