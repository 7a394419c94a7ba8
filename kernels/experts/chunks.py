"""A grouped product as a loop over chunks of rows that have one matrix: a CPU multiplies no more than it must."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels.inputs import product as einsum


class Chunks(NamedTuple):
  """The chunks of all groups, one group after the other; the last chunk of a group reaches into the next one's rows."""

  matrix: Int[Array, "c"]  # of each chunk
  first: Int[Array, "c"]  # row
  rows: Int[Array, "c"]  # that belong to the group
  number: Int[Array, ""]  # of chunks there are; the entries after them say nothing


@jax.custom_vjp
def product(x: Float[Array, "r d"], W: Float[Array, "e d f"], sizes: Int[Array, "e"]) -> Float[Array, "r f"]:
  """Returns the rows of x, in groups one after the other, each multiplied by its group's matrix.

  The rows after the last group have any value. A chunk's product is in the dtype of x, with sums in at least float32.
  """
  return _product(x, W, sizes, "rd,df->rf")


def _product(x: Array, W: Array, sizes: Array, equation: str) -> Array:
  size = _size(len(x), len(W))
  chunks = _chunks(sizes, len(x), size)
  features = W.shape[2] if equation.endswith("df->rf") else W.shape[1]
  x, y = _padded(x, size), jnp.zeros((len(x) + size, features), x.dtype)
  wide = jnp.promote_types(x.dtype, jnp.float32)

  # what a chunk writes into the rows of the next group, that group's own chunks overwrite
  def one(i, y):
    rows = jax.lax.dynamic_slice_in_dim(x, chunks.first[i], size)
    answer = einsum(equation, rows, W[chunks.matrix[i]], wide).astype(y.dtype)
    return jax.lax.dynamic_update_slice_in_dim(y, answer, chunks.first[i], axis=0)

  return jax.lax.fori_loop(0, chunks.number, one, y)[:-size]


def _gradient_of_matrices(x: Array, y_bar: Array, sizes: Array, dtype) -> Float[Array, "e d f"]:
  size = _size(len(x), len(sizes))
  chunks = _chunks(sizes, len(x), size)
  x, y_bar = _padded(x, size), _padded(y_bar, size)
  wide = jnp.promote_types(x.dtype, jnp.float32)

  def one(i, W_bar):
    rows, rows_bar = (jax.lax.dynamic_slice_in_dim(z, chunks.first[i], size) for z in (x, y_bar))
    own = (jnp.arange(size) < chunks.rows[i])[:, None]
    # past the last group either may have any value, NaN included
    rows, rows_bar = (jnp.where(own, z, 0) for z in (rows, rows_bar))
    return W_bar.at[chunks.matrix[i]].add(einsum("rd,rf->df", rows, rows_bar, wide))

  zeros = jnp.zeros((len(sizes), x.shape[1], y_bar.shape[1]), wide)
  return jax.lax.fori_loop(0, chunks.number, one, zeros).astype(dtype)


def _backward(saved, y_bar):
  x, W, sizes = saved
  x_bar = _product(y_bar, W, sizes, "rf,df->rd")
  return x_bar, _gradient_of_matrices(x, y_bar, sizes, W.dtype), None


product.defvjp(lambda x, W, sizes: (product(x, W, sizes), (x, W, sizes)), _backward)


def _size(rows: int, groups: int) -> int:
  """Returns the rows of a chunk: half a mean group's, since on average half a chunk of each group is idle work."""
  half = max(rows // (2 * groups), 1)
  return min(max(1 << (half.bit_length() - 1), 8), 256)


def _chunks(sizes: Int[Array, "e"], rows: int, size: int) -> Chunks:
  counts = -(-sizes // size)
  ends, starts = jnp.cumsum(counts), jnp.cumsum(sizes) - sizes
  number = jnp.arange(rows // size + len(sizes))
  matrix = jnp.minimum(jnp.searchsorted(ends, number, side="right"), len(sizes) - 1)
  before = (number - (ends - counts)[matrix]) * size
  return Chunks(matrix, starts[matrix] + before, jnp.minimum(sizes[matrix] - before, size), ends[-1])


def _padded(x: Float[Array, "r d"], size: int) -> Float[Array, "s d"]:
  return jnp.concatenate([x, jnp.zeros((size, x.shape[1]), x.dtype)])
