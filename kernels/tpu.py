"""The common parts of the Pallas kernels for TPUs: when they can run, and how chunks of time lie in their grids."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Inexact, Int

from kernels import chunks, dispatch

ROWS, LANES = 8, 128  # of a register: tokens and channels


def in_order(
  kernel: Callable, blocks: Any, name: str, arrays: Iterable[tuple], results: Iterable[tuple], scratch: Iterable = ()
) -> Any:
  """Calls `kernel(blocks, *refs)` for every program of `blocks.grid`, and returns the results.

  Rows of the batch and blocks of channels come in any order; chunks of time come one after the other, with the state in
  VMEM.

  Args:
    arrays: pairs of an array and its block, or of trees of both.
    results: pairs of a shape and its block, or of trees of both.
    scratch: memory of each program.
  """
  (args, in_specs), (out_shape, out_specs) = zip(*arrays), zip(*results)
  return pl.pallas_call(
    functools.partial(kernel, blocks),
    grid=blocks.grid,
    in_specs=list(in_specs),
    out_specs=list(out_specs),
    out_shape=list(out_shape),
    scratch_shapes=list(scratch),
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
    name=name,
  )(*args)


def why_not(*arrays: Inexact[Array, "..."]) -> str | None:
  """Returns why our kernels for TPUs cannot run these arrays, or None."""
  if reason := dispatch.elsewhere("tpu"):
    return reason
  dtypes = {z.dtype for z in arrays} - {jnp.dtype(jnp.float32), jnp.dtype(jnp.complex64)}
  return f"a TPU computes in 32 bits, not in {sorted(map(str, dtypes))}" if dtypes else None


def even(size: int, most: int, multiple: int) -> int:
  """Returns the size of blocks of about equal size, a multiple and at most `most`, that `size` is cut into."""
  return chunks.up(-(-size // -(-size // most)), multiple)


def divisor(size: int, most: int, multiple: int) -> int:
  """Returns the largest divisor of `size` that is a multiple and at most `most`; all of it if there is none."""
  return max((n for n in range(multiple, most + 1, multiple) if size % n == 0), default=size)


def words(reset: Bool[Array, "b t"], tokens: int, rows: int = ROWS) -> Int[Array, "b m 1 tiles"]:
  """Packs a mask into bits for scalar memory: `rows` tokens in a word, words of a chunk of `tokens` in a row."""
  b, t = reset.shape
  return chunks.words(reset, rows, chunks.up(t, tokens)).reshape(b, -1, 1, tokens // rows)


def unpack(word: Int[Array, ""], row: Int[Array, "rows lanes"]) -> Bool[Array, "rows lanes"]:
  """Reads from one word of the mask which of its tokens start a document."""
  return jnp.bitwise_and(word, 1 << row) != 0


def product(x: Float[Array, "..."], y: Float[Array, "..."], of_x: int = 1, of_y: int = 0) -> Float[Array, "..."]:
  """Returns the product of two matrices over axis `of_x` of x and `of_y` of y; float32 means float32 here, too."""
  dims = (((of_x,), (of_y,)), ((), ()))
  return lax.dot_general(x, y, dims, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32)


def turn(z: Float[Array, "r c"]) -> Float[Array, "c r"]:
  """Turns a row into a column, or a column into a row; every sum has one term."""
  size, rows = z.size, z.shape[0]
  wide = jnp.broadcast_to(z, (size, size))
  row, column = (lax.broadcasted_iota(jnp.int32, wide.shape, axis) for axis in (0, 1))
  return jnp.where(row == column, wide, 0.0).sum(1 if rows == 1 else 0, keepdims=True)
