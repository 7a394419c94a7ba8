"""Keeps inf and NaN from the tokens before them, in ops that multiply blocks of tokens by masked matrices.

Such a mask is a zero, and 0 * inf is NaN: a token that is not finite would spoil the earlier tokens of its block. So
its inputs are replaced by zeros, and the outputs from it on are set to NaN afterwards.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def contain(
  keep: Bool[Array, "b t"] | None, *arrays: Float[Array, "b t ..."] | None
) -> tuple[tuple[Any, ...], Bool[Array, "b t"] | None]:
  """Replaces tokens that are not finite in one of the arrays by zeros in all of them.

  Args:
    keep: False where a document starts.
    arrays: None stays None. Logarithms of decays have to be cut off above minus infinity before.

  Returns:
    The arrays, and where such a token stands at or before each token in its document; None for fewer than two tokens.
  """
  known = [z for z in arrays if z is not None]
  if known[0].shape[1] <= 1:
    return arrays, None
  bad = jnp.zeros(known[0].shape[:2], bool)
  for z in known:
    bad |= ~jnp.isfinite(z).all(axis=tuple(range(2, z.ndim)))
  time = jnp.arange(bad.shape[1])
  last = jax.lax.cummax(jnp.where(bad, time, -1), axis=1)
  start = 0 if keep is None else jax.lax.cummax(jnp.where(keep, 0, time), axis=1)
  blank = lambda z: None if z is None else jnp.where(jax.lax.expand_dims(bad, range(2, z.ndim)), 0, z)
  return tuple(map(blank, arrays)), last >= start


def mark(
  after: Bool[Array, "b t"] | None, y: Float[Array, "b t ..."], state: Any
) -> tuple[Float[Array, "b t ..."], Any]:
  """Sets to NaN the outputs at the tokens of `contain`'s mask, and the state of the rows whose last token is one."""
  if after is None:
    return y, state
  nan = lambda where, z: jnp.where(jax.lax.expand_dims(where, range(where.ndim, z.ndim)), jnp.nan, z).astype(z.dtype)
  last = after[:, -1]
  return nan(after, y), jax.tree.map(lambda z: nan(last, z) if jnp.issubdtype(z.dtype, jnp.inexact) else z, state)
