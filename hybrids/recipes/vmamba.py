"""VMamba: an image read along four paths and an MLP by turns, in stages of half the resolution and twice the width.

These are the sizes of the paper's second version: one state a channel, no gate beside the scans, a stem and merges of
convolutions. Images have 224 by 224 pixels of three colours, and there are 1,000 classes (ImageNet). The paper counts
4.9, 8.7 and 15.4 billion products an image.

Source: Liu et al. 2024, arXiv:2401.10166, table 1; MzeroMiko/VMamba, classification/configs/vssm (tiny is s1l8, ratio 1
and 8 layers; vmambav2_small_224 and vmambav2_base_224 are s2l15, ratio 2 and 15 layers).
"""

from collections.abc import Sequence
from typing import Any

from hybrids.recipes.recipe import Recipe


def model(
  *, width: int, depths: Sequence[int], expand: int, ff: int = 4, state: int = 1, norm_eps: float = 1e-5
) -> dict[str, Any]:
  """Returns the sections of a classifier of images.

  Args:
    depths: layers of each stage.
    expand: channels of the scans for each of the stage's width.
    ff: channels of the MLPs, likewise.
  """
  letters = {"s": dict(name="ss2d", state=state, expand=expand), "-": dict(name="mlp", expand=ff, bias=True)}
  norm = dict(name="layer", eps=norm_eps)
  stage = lambda depth: dict(pattern="s-", depth=2 * depth, letters=letters, branch=dict(norm=norm))
  return dict(
    width=width,
    embed=dict(name="conv_stem"),
    body=dict(name="stages", stages=tuple(map(stage, depths)), merge="conv", norm=norm),
    head=dict(name="classifier", pool="mean"),
  )


IMAGENET: dict[str, Any] = dict(head="classifier", features=3, classes=1000, length=224 * 224, within=0.02)

RECIPES = {
  "vmamba_t": Recipe(model, dict(width=96, depths=(2, 2, 8, 2), expand=1), 30_000_000, **IMAGENET),
  "vmamba_s": Recipe(model, dict(width=96, depths=(2, 2, 15, 2), expand=2), 50_000_000, **IMAGENET),
  "vmamba_b": Recipe(model, dict(width=128, depths=(2, 2, 15, 2), expand=2), 89_000_000, **IMAGENET),
  "vmamba_toy": Recipe(
    model, dict(width=8, depths=(1, 1), expand=1, ff=2), head="classifier", features=1, classes=3, length=64
  ),
}
