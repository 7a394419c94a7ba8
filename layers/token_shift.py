"""Token shift of RWKV: every token is mixed with the one before it."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.inputs import Lengths, Reset
from layers.lengths import last_of


def token_shift(
  x: Float[Array, "b t d"], last: Float[Array, "b d"], *, reset: Reset = None, lengths: Lengths = None
) -> tuple[Float[Array, "b t d"], Float[Array, "b d"]]:
  """Returns the token before each token (0 at a document's first token), and the last token of each row.

  Args:
    last: the token before the first one, in the dtype of the state.
  """
  rows = jnp.concatenate([last[:, None], x.astype(last.dtype)], axis=1)
  before = rows[:, :-1].astype(x.dtype)
  if reset is not None:
    before = jnp.where(reset[..., None], 0, before)
  return before, last_of(rows[:, 1:], last, lengths) if lengths is not None else rows[:, -1]
