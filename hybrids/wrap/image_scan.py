"""Reading an image along several paths; there is no state: the whole image is needed at once.

The scans of Vim (Zhu et al. 2024, arXiv:2401.09417) and VMamba (Liu et al. 2024, arXiv:2401.10166).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybrids import mixer as mixer_lib
from kernels.inputs import Lengths, Reset
from layers import images, reversal
from layers.choices import one_of
from layers.mixer import Mixer, Where
from layers.paths import ORDERS, path, rank
from mistake import Mistake

MERGES = ("sum", "mean")


class ImageScan(Mixer):
  """y = sum_o back_o(mixer_o(x along o)), over the paths o named in `orders`, or that sum over their number.

  VMamba's four are row, column and both reversed, summed; Vim's two are row and row_reversed, averaged. Each document
  is an image of its own, which begins at its first token; where `lengths` end it, the rest of a path is left out. Gaps
  between samples, side["dt"], become those between neighbours on the path. If the mixer offers arrays to later layers,
  the paths after the first offer theirs as NAME_1, NAME_2 ….

  Attributes:
    mixer: the wrapped mixer's `name` and arguments; its width is this one's.
    orders: names in `layers.paths.ORDERS`.
    merge: "sum" or "mean".
    shared: all paths have the same parameters.
    rows, columns: the image's, whose pixels come row by row; the two factors of the sequence's length nearest to each
      other if not given.
  Raises:
    ValueError: an order or `merge` is unknown, there is no order, or the mixer cannot be built; when called, `rows` and
      `columns` do not make the sequence's length.
  """

  width: int
  mixer: Mapping[str, Any]
  orders: Sequence[str] = ("row", "column", "row_reversed", "column_reversed")
  merge: str = "sum"
  shared: bool = False
  rows: int | None = None
  columns: int | None = None
  layer: int = 0
  depth: int = 1

  STATE = "none"

  def __post_init__(self):
    self.mixer = mixer_lib.frozen(self.mixer)
    self.orders = mixer_lib.frozen(self.orders)
    unknown = [name for name in self.orders if name not in ORDERS]
    if unknown or not self.orders:
      raise Mistake(f"image_scan: orders={self.orders} has {unknown or 'none'}; choose from {sorted(ORDERS)}")
    one_of(self, merge=MERGES)
    if not getattr(self._one_way(parent=None), "layer", 0):
      # layers are then alike, and made and run by one loop
      self.layer = 0
    super().__post_init__()

  @property
  def SIDE(self) -> tuple[str, ...]:
    """Returns the names of the inputs per token that the wrapped mixer reads."""
    names, more = self._one_way(parent=None).SIDE, range(1, len(self.orders) if self.OFFERS else 1)
    return (*names, *(f"{name}_{i}" for i in more for name in names))

  def setup(self):
    self.paths = [self._one_way() for _ in (self.orders[:1] if self.shared else self.orders)]

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    y, names = jnp.zeros_like(x), self._one_way(parent=None).SIDE
    for i, (mixer, order) in enumerate(self._along(x, where.reset, where.lengths)):
      side = {name: where.side.get(f"{name}_{i}", where.side[name]) for name in names if name in where.side}
      if order is None:
        y = y + mixer(x, **where.masks, side=side or None)
        continue
      along = {key: reversal.at(value, order) for key, value in side.items()}
      if "dt" in along:
        along["dt"] = reversal.gaps(side["dt"], order, **where.masks)
      # documents keep their places in the row, so they begin and end where they did
      out = mixer(reversal.at(x, order), **where.masks, side=along or None)
      y = y + reversal.at(out, jnp.argsort(order, axis=1))
    return y / len(self.orders) if self.merge == "mean" else y

  def offer(
    self, x: Float[Array, "b t d"], state: Any, *, reset: Reset = None, lengths: Lengths = None
  ) -> Mapping[str, Array]:
    """Returns the arrays that the mixers of all paths offer to later layers, in the order of the tokens."""
    empty, found = self._one_way(parent=None).init_state(*x.shape[:2]), {}
    for i, (mixer, order) in enumerate(self._along(x, reset, lengths, shapes=True)):
      read = x if order is None else reversal.at(x, order)
      for name, value in mixer.offer(read, empty, reset=reset, lengths=lengths).items():
        found[f"{name}_{i}" if i else name] = value if order is None else reversal.at(value, jnp.argsort(order, axis=1))
    return found

  @property
  def OFFERS(self) -> bool:
    """Returns whether the wrapped mixer has arrays for later layers."""
    return mixer_lib.offers(self._one_way(parent=None))

  def _along(
    self, x: Array, reset: Reset, lengths: Lengths, *, shapes: bool = False
  ) -> list[tuple[nn.Module, Array | None]]:
    """Returns the mixer of each path, and the tokens in the order in which it reads them; None for their own.

    Args:
      shapes: one token, which is no image, may stand for all, as it does where layers are initialised.
    """
    if x.shape[1] == 1 and (shapes or self.is_initializing()):
      return [(mixer, None) for mixer in self._mixers()]
    rows, columns = images.sides("image_scan", x.shape[1], dict(rows=self.rows, columns=self.columns))
    order = lambda name: None if name == "row" else path(rank(name, rows, columns), x.shape[0], reset, lengths)
    return [(mixer, order(name)) for mixer, name in zip(self._mixers(), self.orders)]

  def _mixers(self) -> Sequence[nn.Module]:
    return self.paths * (len(self.orders) if self.shared else 1)

  @nn.nowrap
  def _one_way(self, **kwargs) -> nn.Module:
    return mixer_lib.build_spec(self.mixer, width=self.width, layer=self.layer, depth=self.depth, **kwargs)
