"""Reading an image along several paths; there is no state: the whole image is needed at once.

The scans of Vim (Zhu et al. 2024, arXiv:2401.09417) and VMamba (Liu et al. 2024, arXiv:2401.10166).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hybrids import mixer as mixer_lib
from kernels.documents import positions
from kernels.inputs import Lengths, Reset
from layers import images, reversal
from layers.choices import one_of
from layers.mixer import Mixer, Where
from mistake import Mistake

MERGES = ("sum", "mean")
Order = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]


class ImageScan(Mixer):
  """y = sum_o back_o(mixer_o(x along o)), over the paths o named in `orders`, or that sum over their number.

  VMamba's four are row, column and both reversed, summed; Vim's two are row and row_reversed, averaged. Each document
  is an image of its own, which begins at its first token; where `lengths` end it, the rest of a path is left out. Gaps
  between samples, side["dt"], become those between neighbours on the path.

  Attributes:
    mixer: the wrapped mixer's `name` and arguments; its width is this one's.
    orders: names in ORDERS.
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
    return self._one_way(parent=None).SIDE

  def setup(self):
    self.paths = [self._one_way() for _ in (self.orders[:1] if self.shared else self.orders)]

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    rows, columns = images.sides("image_scan", x.shape[1], dict(rows=self.rows, columns=self.columns))
    y = jnp.zeros_like(x)
    for mixer, name in zip(self.paths * (len(self.orders) if self.shared else 1), self.orders):
      if name == "row":
        y = y + mixer(x, **where.masks, side=where.side or None)
        continue
      path = _path(rank(name, rows, columns), x.shape[0], where.reset, where.lengths)
      along = {key: reversal.at(value, path) for key, value in where.side.items()}
      if "dt" in along:
        along["dt"] = reversal.gaps(where.side["dt"], path, **where.masks)
      # documents keep their places in the row, so they begin and end where they did
      out = mixer(reversal.at(x, path), **where.masks, side=along or None)
      y = y + reversal.at(out, jnp.argsort(path, axis=1))
    return y / len(self.orders) if self.merge == "mean" else y

  @nn.nowrap
  def _one_way(self, **kwargs) -> nn.Module:
    return mixer_lib.build_spec(self.mixer, width=self.width, layer=self.layer, depth=self.depth, **kwargs)


def rank(name: str, rows: int, columns: int) -> np.ndarray:
  """Returns when each pixel, counted row by row, is visited along a path."""
  row, column = np.divmod(np.arange(rows * columns), columns)
  return np.argsort(np.lexsort(ORDERS[name](row, column)[::-1]))


def _row(row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, ...]:
  return row, column


def _column(row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, ...]:
  return column, row


def _snake(row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, ...]:
  """Goes to the right in even rows and to the left in odd ones."""
  return row, np.where(row % 2, -column, column)


def _hilbert(row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, ...]:
  """Follows Hilbert's curve through the smallest square of side 2^k around the image, leaving out places outside of it.

  The quarter of each size says where on the curve a place is; what lies within is turned for the quarter's sake.
  """
  y, x, place = row.copy(), column.copy(), np.zeros_like(row)
  half = 2 ** max(0, int(max(row.max(), column.max())).bit_length() - 1)
  while half:
    down, right = (y & half) > 0, (x & half) > 0
    place += half**2 * ((3 * right) ^ down)
    x = np.where(~down & right, 2 * half - 1 - x, x) % (2 * half)
    y = np.where(~down & right, 2 * half - 1 - y, y) % (2 * half)
    x, y = np.where(down, x, y), np.where(down, y, x)
    half //= 2
  return (place,)


def _reversed(order: Order) -> Order:
  return lambda row, column: tuple(-key for key in order(row, column))


# A path by name: keys, most important first, by which pixels are sorted.
FORWARD: dict[str, Order] = {"row": _row, "column": _column, "snake": _snake, "hilbert": _hilbert}
ORDERS: dict[str, Order] = {**FORWARD, **{f"{name}_reversed": _reversed(order) for name, order in FORWARD.items()}}


def _path(visited: np.ndarray, b: int, reset: Reset, lengths: Lengths) -> Int[Array, "b t"]:
  """Returns the indices of tokens in the order of a path, each document by itself, and padding last."""
  t = visited.size
  if reset is None and lengths is None:
    return jnp.broadcast_to(np.argsort(visited), (b, t))
  document = jnp.zeros((b, t), jnp.int32) if reset is None else jnp.cumsum(reset, axis=1, dtype=jnp.int32)
  if lengths is not None:
    document = jnp.where(jnp.arange(t) < lengths[:, None], document, t + 1)
  place, _ = positions(jnp.zeros(b, jnp.int32), t, reset=reset, lengths=lengths)
  return jnp.lexsort((jnp.asarray(visited, jnp.int32)[place], document), axis=1)
