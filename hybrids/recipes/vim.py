"""Vim: patches of an image and a class token in their middle, read by Mamba both ways; no MLPs.

Images have 224 by 224 pixels of three colours, patches 16 by 16, and there are 1,000 classes (ImageNet). Departs: the
class token has no position of its own, one vector less than in the released models.

Source: Zhu et al. 2024, arXiv:2401.09417, table 1; hustvl/Vim, vim/models_mamba.py at 095ecd3 (half of the sum of both
ways, the token in the middle, RMS norms).
"""

from typing import Any

from hybrids.recipes.recipe import Recipe


def model(
  *, width: int, depth: int = 24, patch: int = 16, patches: int = 196, state: int = 16, norm_eps: float = 1e-5
) -> dict[str, Any]:
  """Returns the sections of a classifier of images with `depth` layers, whose positions are those of `patches`."""
  return dict(
    width=width,
    max_len=patches,
    embed=dict(name="patches", size=patch, position="learned", class_token="middle"),
    body=dict(
      name="stack",
      pattern="v",
      depth=depth,
      letters={"v": dict(name="vim", state=state)},
      branch=dict(norm=dict(name="rms", eps=norm_eps)),
    ),
    head=dict(name="classifier", pool="cls"),
  )


IMAGENET: dict[str, Any] = dict(head="classifier", features=3, classes=1000, length=224 * 224, within=0.03)

RECIPES = {
  "vim_t": Recipe(model, dict(width=192), 7_000_000, **IMAGENET),
  "vim_s": Recipe(model, dict(width=384), 26_000_000, **IMAGENET),
  "vim_b": Recipe(model, dict(width=768), 98_000_000, **IMAGENET),
  "vim_toy": Recipe(
    model, dict(width=8, depth=2, patch=2, patches=4, state=2), head="classifier", features=1, classes=3, length=16
  ),
}
