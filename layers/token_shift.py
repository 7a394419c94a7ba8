"""The token before, as RWKV mixes it into every token."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from layers.lengths import last_of


def token_shift(
  x: Float[Array, "b t d"],
  last: Float[Array, "b d"],
  *,
  reset: Bool[Array, "b t"] | None = None,
  lengths: Int[Array, "b"] | None = None,
) -> tuple[Float[Array, "b t d"], Float[Array, "b d"]]:
  """For every token the one before it, zeros before a document; and each row's last one.

  Args:
    last: the token before the first, in the dtype that it is remembered in.
  """
  rows = jnp.concatenate([last[:, None], x.astype(last.dtype)], axis=1)
  before = rows[:, :-1].astype(x.dtype)
  if reset is not None:
    before = jnp.where(reset[..., None], 0, before)
  return before, last_of(rows[:, 1:], last, lengths) if lengths is not None else rows[:, -1]
