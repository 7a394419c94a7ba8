"""Paths through an image whose pixels come as a sequence, row by row: the orders in which scans visit them."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from kernels.documents import positions
from kernels.inputs import Lengths, Reset

Order = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]


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
  y, x, rank = row.copy(), column.copy(), np.zeros_like(row)
  half = 2 ** max(0, int(max(row.max(), column.max())).bit_length() - 1)
  while half:
    down, right = (y & half) > 0, (x & half) > 0
    rank += half**2 * ((3 * right) ^ down)
    x = np.where(~down & right, 2 * half - 1 - x, x) % (2 * half)
    y = np.where(~down & right, 2 * half - 1 - y, y) % (2 * half)
    x, y = np.where(down, x, y), np.where(down, y, x)
    half //= 2
  return (rank,)


def _reversed(order: Order) -> Order:
  return lambda row, column: tuple(-key for key in order(row, column))


# A path by name: keys, most important first, by which pixels are sorted.
FORWARD: dict[str, Order] = {"row": _row, "column": _column, "snake": _snake, "hilbert": _hilbert}
ORDERS: dict[str, Order] = {**FORWARD, **{f"{name}_reversed": _reversed(order) for name, order in FORWARD.items()}}


def path(visited: np.ndarray, b: int, reset: Reset, lengths: Lengths) -> Int[Array, "b t"]:
  """Returns the indices of tokens in the order of a path, each document by itself, and padding last."""
  t = visited.size
  if reset is None and lengths is None:
    return jnp.broadcast_to(np.argsort(visited), (b, t))
  document = jnp.zeros((b, t), jnp.int32) if reset is None else jnp.cumsum(reset, axis=1, dtype=jnp.int32)
  if lengths is not None:
    document = jnp.where(jnp.arange(t) < lengths[:, None], document, t + 1)
  position, _ = positions(jnp.zeros(b, jnp.int32), t, reset=reset, lengths=lengths)
  return jnp.lexsort((jnp.asarray(visited, jnp.int32)[position], document), axis=1)
