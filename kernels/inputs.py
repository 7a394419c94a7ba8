"""What every op does to its inputs before an implementation sees them.

The masks replace values by `where`, never by multiplication, so that whatever stands past `lengths`, NaN included,
reaches neither values nor gradients.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Inexact, Int


def compute_dtype(*arrays: Inexact[Array, "..."]) -> jnp.dtype:
  """The dtype a recurrence runs in: that of all its inputs together, and at least float32."""
  return jnp.result_type(jnp.float32, *arrays)


def valid(lengths: Int[Array, "b"], t: int) -> Bool[Array, "b t"]:
  """True at the tokens of a right-padded batch that are there."""
  return jnp.arange(t) < lengths[:, None]


def blank(mask: Bool[Array, "b t"], *arrays: Inexact[Array, "b t ..."]) -> tuple[Inexact[Array, "b t ..."], ...]:
  """The arrays with zeros where `mask` is False."""
  return tuple(jnp.where(jax.lax.expand_dims(mask, range(2, a.ndim)), a, 0) for a in arrays)
