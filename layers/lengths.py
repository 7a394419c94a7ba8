"""Keeps what stands past a row's length out of a mixer, on its way in, on its way out and in what it remembers."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels import inputs
from mistake import Mistake


def blank_past(x: Float[Array, "b t ..."], lengths: Int[Array, "b"] | None) -> Float[Array, "b t ..."]:
  """x with zeros past `lengths`, by `where`: NaN there reaches neither values nor gradients. x itself without lengths.

  A mixer blanks its input (a dense layer would multiply NaN by a zero gradient) and its output (which biases fill).

  Raises:
    ValueError: there is no token at all, of which heads and groups could not be told apart.
  """
  if x.shape[1] == 0:
    raise Mistake(f"no tokens: the input is {x.shape}; give at least one, past lengths=0 if there is none to read")
  return x if lengths is None else inputs.blank(inputs.valid(lengths, x.shape[1]), x)[0]


def last_of(
  z: Float[Array, "b t ..."], before: Float[Array, "b ..."], lengths: Int[Array, "b"] | None
) -> Float[Array, "b ..."]:
  """z at each row's last token; `before`, that of the call before, in rows of no tokens."""
  if lengths is None:
    return z[:, -1]
  rows = jnp.concatenate([before[:, None], z], axis=1)
  index = jnp.clip(lengths, 0, z.shape[1]).reshape(-1, *[1] * (z.ndim - 1))
  return jnp.take_along_axis(rows, index, axis=1)[:, 0]
