"""Keeps inf and NaN from the tokens before them, in ops that multiply blocks of tokens by masked matrices.

Such a mask is a zero, and 0 * inf is NaN: a token that is not finite would spoil the earlier tokens of its block, and a
state that is not finite the next documents. So zeros replace the inputs of such a token, and the outputs from it on are
set to NaN afterwards. Gradients are kept apart in the same way: those of earlier outputs in earlier tokens stay as they
are.

Ops that go from token to token (`linear_scan`, `selective_scan`, `rg_lru`, `short_conv`, `lti` by lags) need none of
this for their outputs. In their backward passes a decay or an output that is not finite spoils the gradients of all
earlier tokens of its document, even if the loss does not depend on it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact

from kernels import inputs


def contain(
  reset: inputs.Reset, state: Float[Array, "b ..."] | None, *arrays: Float[Array, "b t ..."] | None
) -> tuple[tuple[Any, ...], Any, Bool[Array, "b t"] | None]:
  """Replaces tokens that are not finite in one of the arrays by zeros in all of them.

  Args:
    reset: True where a document starts.
    state: the state before the first token. If documents start, zeros replace one that is not finite, too.
    arrays: None stays None. Logarithms of decays have to be cut off above minus infinity before.

  Returns:
    The arrays, the state, and where something that is not finite stands at or before each token in its document; None
    for fewer than two tokens.
  """
  known = [z for z in arrays if z is not None]
  if known[0].shape[1] <= 1:
    return arrays, state, None
  finite = inputs.finite(*known)
  time = jnp.arange(finite.shape[1])
  last = jax.lax.cummax(jnp.where(finite, -1, time), axis=1)
  start = 0 if reset is None else jax.lax.cummax(jnp.where(reset, time, 0), axis=1)
  after = last >= start
  if state is not None and reset is not None:
    lost = ~inputs.finite(state[:, None])
    state, after = inputs.where(lost[:, 0], 0, state), after | (lost & (jnp.cumsum(reset, axis=1) == 0))
  return inputs.blank(finite, *arrays), state, after


def mark(
  after: Bool[Array, "b t"] | None, y: Inexact[Array, "b t ..."], state: Any
) -> tuple[Inexact[Array, "b t ..."], Any]:
  """Sets to NaN the outputs at the tokens of `contain`'s mask, and the state of the rows whose last token is one."""
  if after is None:
    return y, state
  nan = lambda mask, z: inputs.where(mask, jnp.nan, z).astype(z.dtype)
  last = after[:, -1]
  return nan(after, y), jax.tree.map(lambda z: nan(last, z) if jnp.issubdtype(z.dtype, jnp.inexact) else z, state)
