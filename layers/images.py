"""Images whose pixels come as a sequence, row by row: their sides, and convolutions over both of them."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels import inputs
from kernels.long_conv import long_conv, long_conv_nd
from layers import history
from layers.lengths import blank_past


def sides(name: str, t: int, rows: int | None, columns: int | None) -> tuple[int, int]:
  """Rows and columns of an image of t pixels; the factors of t nearest to each other where none is given.

  Raises:
    ValueError: what is given does not make t pixels; `name` says who asked.
  """
  for field, size in (("rows", rows), ("columns", columns)):
    if size is not None and (size < 1 or t % size):
      raise ValueError(f"{name}: {field}={size} does not divide the {t} tokens of the sequence")
  if rows is None:
    rows = t // columns if columns else max((r for r in range(1, math.isqrt(t) + 1) if t % r == 0), default=1)
  columns = columns or t // rows
  if rows * columns != t:
    raise ValueError(f"{name}: rows={rows} times columns={columns} is not {t}, the length of the sequence")
  return rows, columns


def convolve(
  x: Float[Array, "b t e"],
  k: Float[Array, "e i j"],
  *,
  origin: tuple[int, int],
  columns: int,
  reset: Bool[Array, "b t"] | None = None,
  lengths: Int[Array, "b"] | None = None,
) -> Float[Array, "b t e"]:
  """`kernels.long_conv.long_conv_nd` over rows and columns; with `reset` each document is an image of its own.

  Args:
    k: taps by lag, `columns` or fewer to each side.
    origin: the index of lag 0 along rows and columns.
    columns: pixels in a row of the image, and of each document.
  """
  b, t, e = x.shape
  x = blank_past(x, lengths)
  if reset is None:
    y = long_conv_nd(x.reshape(b, t // columns, columns, e), k, origin=origin).reshape(b, t, e)
    return blank_past(y, lengths)
  # Rows that are filled up with zeros until no tap reaches from one into the next make a line of the image, on which
  # the convolution has one axis. Every row has a pixel, so there are t of them at the most.
  stride = columns + max(origin[1], k.shape[2] - 1 - origin[1])
  place, _ = history.places(jnp.zeros(b, jnp.int32), t, reset=reset, lengths=lengths)
  column = place % columns
  at = (jnp.cumsum(column == 0, axis=1) - 1) * stride + column
  if lengths is not None:
    at = jnp.where(inputs.valid(lengths, t), at, t * stride)
  row = jnp.arange(b)[:, None]
  line = jnp.zeros((b, t * stride, e), x.dtype).at[row, at].set(x, mode="drop")
  starts = jnp.zeros((b, t * stride), bool).at[row, at].set(place == 0, mode="drop")
  taps = jnp.pad(k, ((0, 0), (0, 0), (0, stride - k.shape[2]))).reshape(e, -1)
  zero = origin[0] * stride + origin[1]
  back = taps[:, : zero + 1][:, ::-1].at[:, 0].set(0)
  y = long_conv(line, taps[:, zero:], k_back=back, reset=starts)
  return blank_past(jnp.take_along_axis(y, at[..., None], axis=1, mode="clip"), lengths)
