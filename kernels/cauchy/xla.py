"""`cauchy` for some points after the others: a matrix product with the reciprocals, which are made again backwards."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

CHUNK = 64  # points at a time


def cauchy(v, a, p, q):
  """Computes 1/(x + iy) in real arithmetic twice for each pole and point, and sums and differences of the two."""
  e, k, _ = v.shape
  m = p.shape[0]
  extra = -m % CHUNK
  # a point that nobody reads must be none at which a pole stands
  p, q = jnp.pad(p, (0, extra), constant_values=1).reshape(-1, CHUNK), jnp.pad(q, (0, extra)).reshape(-1, CHUNK)
  weights = jnp.concatenate([v.real, v.imag], axis=-1)

  @jax.checkpoint
  def some(points):
    p, q = points
    x = -q * a.real[..., None]
    above, below = (_reciprocal(x, p - q * y[..., None]) for y in (a.imag, -a.imag))
    plus, minus = (tuple(s + sign * t for s, t in zip(above, below)) for sign in (1, -1))
    real = jnp.concatenate([plus[0], -minus[1]], axis=1)
    imaginary = jnp.concatenate([plus[1], minus[0]], axis=1)
    y = jnp.einsum(
      "ekn,enm->ekm",
      weights,
      jnp.concatenate([real, imaginary], axis=-1),
      precision=jax.lax.Precision.HIGHEST,
    )
    return jax.lax.complex(*jnp.split(y, 2, axis=-1))

  return jnp.moveaxis(jax.lax.map(some, (p, q)), 0, 2).reshape(e, k, -1)[..., :m]


def _reciprocal(x: Float[Array, "*b"], y: Float[Array, "*b"]) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
  size = x * x + y * y
  return x / size, -y / size
