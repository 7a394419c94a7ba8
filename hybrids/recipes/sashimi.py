"""SaShiMi: S4D and MLPs in a U-net over time, on samples of sound in 256 steps.

Departs: layers are S4D's, where the paper has S4's, and pools have no weight norm; so no published number is to be met.

Source: Goel et al. 2022, arXiv:2202.09729, sec. 4 and app. B; state-spaces/s4, models/sequence/backbones/sashimi.py.
"""

from collections.abc import Sequence
from typing import Any

from hybrids.recipes.recipe import Recipe


def model(
  *, width: int, depth: int, pools: Sequence[int] = (4, 4), expand: int = 2, ff: int = 2, state: int = 64
) -> dict[str, Any]:
  """Returns the sections of a U-net with `depth` blocks of a layer and an MLP, `ff` times as wide, at each stage."""
  stack = dict(
    pattern="s-",
    depth=2 * depth,
    letters={"s": dict(name="s4d", state=state), "-": dict(name="mlp", expand=ff, bias=True)},
    branch=dict(norm=dict(name="layer", eps=1e-5)),
  )
  return dict(
    width=width,
    embed=dict(name="tokens"),
    body=dict(name="unet", pools=tuple(pools), expand=expand, stack=stack),
    head=dict(name="lm", tie=False),
  )


RECIPES = {
  "sashimi_8_layers": Recipe(model, dict(width=64, depth=8), vocab=256, length=16_000),
  "sashimi_toy": Recipe(model, dict(width=8, depth=1, pools=(2, 2), state=2), vocab=256),
}
