"""Stages of an image model: stacks with merging of patches between them, each at half the resolution of the last.

State: none; the whole image is needed at once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
from flax.core import FrozenDict
from jaxtyping import Array, Float

from hybrids import mixer as mixer_lib
from hybrids.body.shortening import Shortening
from hybrids.branch import check_norm
from layers import Dense, images, make_token_norm
from layers.choices import one_of
from layers.image_conv import HalvingConv
from layers.mixer import Where
from mistake import Mistake

MERGES = ("squares", "conv")


class Stages(Shortening):
  """Stacks of widths d, 2d, 4d …; between two, a quarter of the tokens are left:

  "squares"  each square of 2 by 2 tokens becomes one, W norm([x_1, …, x_4]); Swin (Liu et al. 2021, arXiv:2103.14030)
  "conv"     norm(W [x_1, …, x_9] + bias) for the 3 by 3 tokens around every second one; VMamba (Liu et al. 2024,
             arXiv:2401.10166)

  It puts out t / 4^(stages-1) tokens of width `out_width`.

  Attributes:
    merge: "squares" or "conv".
    norm: of the merges, by `name` and arguments.
    stages: fields of a `stack` for each stage. The last one's last norm is that of the body; others have none.
    rows: tokens along the image's height; if not given, the most square image that t allows.
  Raises:
    ValueError: when made, if there is no stage or a stack cannot be built; when called, if an image has sides that
      cannot be halved, or with `reset` or `lengths`.
  """

  width: int
  stages: Sequence[Mapping[str, Any]]
  merge: str = "squares"
  norm: Mapping[str, Any] = FrozenDict(name="rms")
  rows: int | None = None

  def __post_init__(self):
    self.stages, self.norm = tuple(map(mixer_lib.frozen, self.stages)), mixer_lib.frozen(self.norm)
    one_of(self, merge=MERGES)
    check_norm(self.norm)
    if not self.stages:
      raise Mistake("stages: there is none; give the fields of a stack for each")
    super().__post_init__()
    self._stacks()

  @property
  def out_width(self) -> int:
    """Returns the width of the outputs."""
    return self.width * 2 ** (len(self.stages) - 1)

  def setup(self):
    self.stacks = [stack.copy(parent=self, name=f"stage_{i}") for i, stack in enumerate(self._stacks())]
    self.norms = [make_token_norm(**self.norm) for _ in self.stages[1:]]
    widths = [2 * self.width * 2**i for i in range(len(self.stages) - 1)]
    squares = lambda width: Dense(width, axes=("inner", "embed"))
    self.merges = [HalvingConv(width) if self.merge == "conv" else squares(width) for width in widths]

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b s e"]:
    if where.reset is not None or where.lengths is not None:
      raise Mistake("body.name='stages' reads whole images: neither packed documents nor padding")
    rows, columns = images.sides("stages", x.shape[1], {"rows": self.rows, "columns": None})
    x = self.stacks[0](x)
    for stack, norm, merge in zip(self.stacks[1:], self.norms, self.merges):
      if rows % 2 or columns % 2:
        raise Mistake(f"stages: an image of {rows} by {columns} tokens cannot be halved; use fewer stages or pad it")
      b, _, d = x.shape
      if self.merge == "conv":
        x = norm(merge(x.reshape(b, rows, columns, d))).reshape(b, -1, 2 * d)
      else:
        squares = x.reshape(b, rows // 2, 2, columns // 2, 2, d).swapaxes(2, 3)
        x = merge(norm(squares.reshape(b, -1, 4 * d)))
      rows, columns = rows // 2, columns // 2
      x = stack(x)
    return x

  @nn.nowrap
  def _stacks(self) -> list[nn.Module]:
    last = len(self.stages) - 1
    sections = [{"last_norm": i == last, **stage} for i, stage in enumerate(self.stages)]
    return [
      mixer_lib.build_spec({"name": "stack", **section}, width=self.width * 2**i, layer=0, depth=1, parent=None)
      for i, section in enumerate(sections)
    ]
