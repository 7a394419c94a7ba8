"""Prepares the inputs of every op before an implementation reads them.

The masks replace values by `where`, never by multiplication, so that whatever stands past `lengths`, NaN included,
reaches neither values nor gradients.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Inexact, Int, Shaped

from kernels import dispatch

Reset = Bool[Array, "b t"] | None  # True at the first token of each document; None: there is none
Lengths = Int[Array, "b"] | None  # tokens of each right-padded row; None: there is no padding


def compute_dtype(*arrays: Inexact[Array, "..."] | None) -> jnp.dtype:
  """Returns the dtype in which a recurrence runs: that of all its inputs together, and at least float32."""
  return jnp.result_type(jnp.float32, *(z for z in arrays if z is not None))


def product(spec: str, x: Inexact[Array, "..."], y: Inexact[Array, "..."], dtype: DTypeLike) -> Inexact[Array, "..."]:
  """Computes `jnp.einsum` with products of the operands' dtype and sums in `dtype`."""
  if not dispatch.multiplies_bfloat16():
    # XLA on CPUs lacks bfloat16 products with sums in float32 for some layouts, which it says when it runs them
    # (UNIMPLEMENTED). Two numbers of bfloat16 have an exact product in float32.
    x, y = x.astype(jnp.promote_types(x.dtype, dtype)), y.astype(jnp.promote_types(y.dtype, dtype))
  return jnp.einsum(spec, x, y, preferred_element_type=dtype)


def valid(lengths: Int[Array, "b"], t: int) -> Bool[Array, "b t"]:
  """Returns True at the tokens of a right-padded batch, False at the padding."""
  return jnp.arange(t) < lengths[:, None]


def finite(*arrays: Inexact[Array, "b t ..."]) -> Bool[Array, "b t"]:
  """Returns whether all entries of a token are finite, in every one of the arrays."""
  # A sum of floats is vectorised, where XLA on CPUs goes through truth values one by one. A maximum is so, too, but
  # loses NaN on the way (JAX 0.10.2).
  sums = (jnp.sum(z - z, axis=tuple(range(2, z.ndim))) for z in arrays)
  return functools.reduce(jnp.logical_and, (total == 0 for total in sums))


def where(mask: Bool[Array, "..."], x: Shaped[Array, "..."] | float, y: Shaped[Array, "..."] | float) -> Any:
  """Returns `jnp.where` for a mask that has the first axes of x or y."""
  return jnp.where(jax.lax.expand_dims(mask, range(mask.ndim, max(jnp.ndim(x), jnp.ndim(y)))), x, y)


def blank(valid: Bool[Array, "b t"] | None, *arrays: Shaped[Array, "b t ..."] | None, value: float = 0) -> Any:
  """Returns the arrays with `value` where `valid` is False; None stays None."""
  if valid is None:
    return arrays
  return tuple(None if z is None else where(valid, z, value) for z in arrays)
