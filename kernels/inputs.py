"""Prepares the inputs of every op before an implementation reads them.

The masks replace values by `where`, never by multiplication, so that whatever stands past `lengths`, NaN included,
reaches neither values nor gradients.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Inexact, Int

from kernels import dispatch


def compute_dtype(*arrays: Inexact[Array, "..."] | None) -> jnp.dtype:
  """The dtype in which a recurrence runs: that of all its inputs together, and at least float32."""
  return jnp.result_type(jnp.float32, *(z for z in arrays if z is not None))


def product(spec: str, x: Inexact[Array, "..."], y: Inexact[Array, "..."], dtype: DTypeLike) -> Inexact[Array, "..."]:
  """`jnp.einsum` with products of the operands' dtype and sums in `dtype`."""
  if dispatch.platform() == "cpu":
    # XLA on CPUs lacks bfloat16 products with sums in float32 for some layouts, which it says when it runs them
    # (UNIMPLEMENTED). Two numbers of bfloat16 have an exact product in float32.
    x, y = x.astype(jnp.promote_types(x.dtype, dtype)), y.astype(jnp.promote_types(y.dtype, dtype))
  return jnp.einsum(spec, x, y, preferred_element_type=dtype)


def valid(lengths: Int[Array, "b"], t: int) -> Bool[Array, "b t"]:
  """True at the tokens of a right-padded batch that are there."""
  return jnp.arange(t) < lengths[:, None]


def blank(mask: Bool[Array, "b t"], *arrays: Inexact[Array, "b t ..."]) -> tuple[Inexact[Array, "b t ..."], ...]:
  """The arrays with zeros where `mask` is False."""
  return tuple(jnp.where(jax.lax.expand_dims(mask, range(2, a.ndim)), a, 0) for a in arrays)
