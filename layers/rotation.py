"""Rotations of pairs whose angles come from the data, as complex numbers of modulus 1."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float

from kernels.linear_scan import linear_scan


def turns(
  angle: Float[Array, "b t ..."], before: Complex[Array, "b ..."], reset: Bool[Array, "b t"] | None = None
) -> Complex[Array, "b t ..."]:
  """u_t = u_{t-1} exp(i angle_t): how far everything has turned, from `before` on or since the document's start.

  As a product and not as exp of i times a sum, so that the error grows with the number of tokens between two turns that
  are compared, and not with the angle that has been summed up before them.

  Args:
    before: of modulus 1.
    reset: True where a document starts, with its own angle alone.
  """
  b, t, *_ = angle.shape
  turn = jnp.exp(1j * angle).reshape(b, t, -1)
  start = jnp.zeros_like(turn) if reset is None else jnp.where(reset[..., None], turn, 0)
  product, _ = linear_scan(turn, start, before.reshape(b, -1), reset=reset)
  return unit(product).reshape(angle.shape)


def unit(z: Complex[Array, "..."]) -> Complex[Array, "..."]:
  """z / |z|: back on the circle, which rounding leaves slowly."""
  return z / jnp.abs(z)


def rotate(z: Float[Array, "*b k"], turn: Complex[Array, "*#b s"]) -> Float[Array, "*b k"]:
  """Entries 2i and 2i + 1, as real and imaginary part, times turn i; the entries after the last turn stay."""
  entries = 2 * turn.shape[-1]
  pairs = z[..., :entries].reshape(*z.shape[:-1], -1, 2)
  turned = jax.lax.complex(pairs[..., 0], pairs[..., 1]) * turn
  turned = jnp.stack([turned.real, turned.imag], axis=-1).reshape(*z.shape[:-1], entries)
  return jnp.concatenate([turned, z[..., entries:]], axis=-1)
