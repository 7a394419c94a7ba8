"""Rotations of pairs of channels: by angles that grow with the position, and by angles that come from the data."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float, Int

from kernels.inputs import Reset
from kernels.linear_scan import linear_scan


def phases(positions: Int[Array, "*b"], frequencies: np.ndarray, dtype: DTypeLike) -> Float[Array, "*b m"]:
  """Computes positions * frequencies up to whole turns, to 1e-6 rad in float32 at every position an int32 holds.

  That holds for frequencies up to 1 rad. The product in float32 would be off by half a radian at position 1e7. A
  frequency is therefore cut in two: an integer in units of 2^-32 turns, whose product with the position overflows by
  whole turns that do not matter, and a remainder so small that its product is below a quarter of a turn.

  Args:
    frequencies: radians per position, in float64.
    dtype: float32 or float64; the latter multiplies as it is.
  """
  if dtype == jnp.float64:
    return positions[..., None].astype(dtype) * frequencies
  turns = frequencies / (2 * np.pi)
  units = np.rint(turns * 2.0**32)
  remainder = (turns - units / 2.0**32).astype(np.float32)
  wrapped = (units % 2.0**32).astype(np.uint32).view(np.int32)
  indices = positions[..., None].astype(jnp.int32)
  whole = (indices * wrapped).astype(jnp.float32) * np.float32(2.0**-32)
  return np.float32(2 * np.pi) * (whole + indices.astype(jnp.float32) * remainder)


def turns(
  angle: Float[Array, "b t ..."], before: Complex[Array, "b ..."], reset: Reset = None
) -> Complex[Array, "b t ..."]:
  """Computes u_t = u_{t-1} exp(i angle_t): the rotation accumulated since `before`, or since the document's start.

  It multiplies rotations instead of summing angles, so that the error of q . k grows with the number of tokens between
  the two, and not with the angle accumulated before them.

  Args:
    before: the rotation before the first token, of modulus 1.
    reset: True where a document starts; the rotation there is that of its own angle alone.
  """
  b, t, *_ = angle.shape
  turn = jnp.exp(1j * angle).reshape(b, t, -1)
  start = jnp.zeros_like(turn) if reset is None else jnp.where(reset[..., None], turn, 0)
  product, _ = linear_scan(turn, start, before.reshape(b, -1), reset=reset)
  return unit(product).reshape(angle.shape)


def unit(z: Complex[Array, "..."]) -> Complex[Array, "..."]:
  """Divides z by its modulus: products of rotations slowly leave the circle by rounding."""
  return z / jnp.abs(z)


def rotate(z: Float[Array, "*b k"], turn: Complex[Array, "*#b s"]) -> Float[Array, "*b k"]:
  """Multiplies entries 2i and 2i + 1, as real and imaginary part, by turn i; entries beyond the last turn stay."""
  entries = 2 * turn.shape[-1]
  pairs = z[..., :entries].reshape(*z.shape[:-1], -1, 2)
  turned = jax.lax.complex(pairs[..., 0], pairs[..., 1]) * turn
  turned = jnp.stack([turned.real, turned.imag], axis=-1).reshape(*z.shape[:-1], entries)
  return jnp.concatenate([turned, z[..., entries:]], axis=-1)
