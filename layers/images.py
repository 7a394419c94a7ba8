"""Images and videos whose pixels come as a sequence, row by row: their sides, and convolutions over all of them."""

import math
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels import inputs
from kernels.documents import positions
from kernels.long_conv import long_conv, long_conv_nd
from kernels.scatter import written
from mistake import Mistake


def sides(name: str, t: int, fixed: Mapping[str, int | None]) -> tuple[int, ...]:
  """Returns the sizes, outermost first, of an image or a video of t pixels.

  Args:
    name: the mixer, for error messages.
    fixed: each side's field and its size; None is chosen here, so that the free sides are as near to equal as factors
      can be.
  Raises:
    ValueError: these sides do not make t pixels, or there are no pixels.
  """
  if t == 0:
    raise Mistake(f"{name}: no tokens; give at least one")
  for field, size in fixed.items():
    if size is not None and (size < 1 or t % size):
      raise Mistake(f"{name}: {field}={size} does not divide the {t} tokens of the sequence")
  known = math.prod(size for size in fixed.values() if size is not None)
  rest, free = t // known, sum(size is None for size in fixed.values())
  sizes = {}
  for field, size in fixed.items():
    if size is None:
      divisors = (s for s in range(1, math.isqrt(rest) + 1) if s**free <= rest and rest % s == 0)
      size = rest if free == 1 else max(divisors, default=1)
      rest, free = rest // size, free - 1
    sizes[field] = size
  if math.prod(sizes.values()) != t:
    product = " times ".join(f"{field}={size}" for field, size in sizes.items())
    raise Mistake(f"{name}: {product} is not {t}, the length of the sequence")
  return tuple(sizes.values())


def neighbours(x: Float[Array, "b r c e"], size: int, stride: int = 1) -> list[Float[Array, "b i j e"]]:
  """Returns the pixels around every pixel, or around every `stride`-th along each side, with zeros around the image.

  They are the `size`² arrays of a square with an odd side, row by row, as the taps of a convolution.
  """
  reach, (rows, columns) = size // 2, x.shape[1:3]
  wide = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
  positions = [(i, j) for i in range(size) for j in range(size)]
  return [wide[:, i : i + rows : stride, j : j + columns : stride] for i, j in positions]


def convolve(
  x: Float[Array, "b t e"],
  k: Float[Array, "e *l"],
  *,
  origin: tuple[int, ...],
  inner: tuple[int, ...],
  reset: inputs.Reset = None,
  lengths: inputs.Lengths = None,
) -> Float[Array, "b t e"]:
  """Calls `kernels.long_conv.long_conv_nd`; with `reset` each document is an image, or a video, of its own.

  What it returns in the padding means nothing; the base class of mixers sets it to 0.

  Args:
    x: the pixels, 0 in the padding.
    k: taps by lag, along each inner axis no more to either side than it has pixels.
    origin: the index of lag 0 along each axis.
    inner: sizes of all axes but the first, for the whole sequence and for each document: an image's columns.
  """
  b, t, e = x.shape
  if reset is None:
    return long_conv_nd(x.reshape(b, -1, *inner, e), k, origin=origin).reshape(b, t, e)
  # With inner axes padded by zeros until no tap reaches from one end around to the other, the image becomes a line, on
  # which the convolution has one axis.
  filled = [size + max(zero, taps - 1 - zero) for size, zero, taps in zip(inner, origin[1:], k.shape[2:])]
  strides = [math.prod(filled[axis:]) for axis in range(len(inner) + 1)]
  on_line = lambda place: sum(index * stride for index, stride in zip(jnp.unravel_index(place, (t, *inner)), strides))
  place, _ = positions(jnp.zeros(b, jnp.int32), t, reset=reset, lengths=lengths)
  # documents follow each other without a gap, and none is stretched by more than its inner axes are
  length = -(-t * strides[0] // math.prod(inner))
  steps = jnp.where(place == 0, 1, on_line(place) - on_line(jnp.maximum(place - 1, 0)))
  number = jnp.cumsum(steps, axis=1) - 1
  if lengths is not None:
    number = jnp.where(inputs.valid(lengths, t), number, length)
  line = written(jnp.zeros((b, length, e), x.dtype), x, number)
  line_reset = written(jnp.zeros((b, length), bool), place == 0, number)
  taps = jnp.pad(k, ((0, 0), (0, 0), *((0, size - l) for size, l in zip(filled, k.shape[2:])))).reshape(e, -1)
  zero = sum(index * stride for index, stride in zip(origin, strides))
  back = taps[:, : zero + 1][:, ::-1].at[:, 0].set(0)
  y = long_conv(line, taps[:, zero:], k_back=back, reset=line_reset)
  return jnp.take_along_axis(y, number[..., None], axis=1, mode="clip")
