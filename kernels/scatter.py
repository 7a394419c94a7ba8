"""Writes into rows at places that differ from row to row."""

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from kernels import dispatch

# of arrays whose places lie along axis 1 and along axis 2
LETTERS = {1: ("b s", "b s e", "b s g x"), 2: ("b g s", "b g s x")}


def written(
  old: Shaped[Array, "b ..."], new: Shaped[Array, "b ..."], place: Int[Array, "b t"], *, axis: int = 1
) -> Shaped[Array, "b ..."]:
  """Returns `old` with the t vectors of `new` at places along `axis`; those of places that do not exist are dropped.

  Each device writes its own rows, heads and channels: XLA would give the vectors of all rows to every device.
  """
  letters = LETTERS[axis][old.ndim - axis - 1]

  def write(old: Array, new: Array, place: Array) -> tuple[Array]:
    rows = jnp.arange(len(place))[:, None]
    if axis == 1:
      return (old.at[rows, place].set(new, mode="drop"),)
    return (old.at[rows, :, place].set(new.swapaxes(1, 2), mode="drop"),)

  return dispatch.shard(write, (letters, letters.replace("s", "t"), "b t"), (letters,))(old, new, place)[0]
