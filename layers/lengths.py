"""Keeps the padding of a row out of a mixer's inputs, outputs and state."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels import inputs
from kernels.inputs import Lengths
from mistake import Mistake


def blank_past(x: Float[Array, "b t ..."], lengths: Lengths) -> Float[Array, "b t ..."]:
  """Returns x with zeros past `lengths`, by `where`, so that NaN there reaches neither values nor gradients.

  Without `lengths` it returns x itself. A mixer blanks its input (a dense layer would multiply NaN by a zero gradient)
  and its output (which biases fill).

  Raises:
    ValueError: there is no token at all, of which heads and groups could not be told apart.
  """
  if x.shape[1] == 0:
    raise Mistake(f"no tokens: the input is {x.shape}; give at least one, past lengths=0 if there is none to read")
  return x if lengths is None else inputs.blank(inputs.valid(lengths, x.shape[1]), x)[0]


def last_of(z: Float[Array, "b t ..."], before: Float[Array, "b ..."], lengths: Lengths) -> Float[Array, "b ..."]:
  """Returns z at each row's last token, and `before`, from the previous call, in rows without tokens."""
  if lengths is None:
    return z[:, -1]
  rows = jnp.concatenate([before[:, None], z], axis=1)
  index = jnp.clip(lengths, 0, z.shape[1]).reshape(-1, *[1] * (z.ndim - 1))
  return jnp.take_along_axis(rows, index, axis=1)[:, 0]
