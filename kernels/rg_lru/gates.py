"""Computes the gates of RG-LRU for each token alone: the decay, and the input that enters the state."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# the constant c of sec. 2.4
C = 8.0
# of the square root, whose slope at a_t = 1 would be infinite; as in the authors' code
MAX_SLOPE = 1000.0


def gate(u, r, i, a_param, reset):
  """a_t and what enters the state, in at least float32: bfloat16 has no numbers between 0.996 and 1."""
  u, r, i = (z.astype(jnp.promote_types(z.dtype, jnp.float32)) for z in (u, r, i))
  log_a = -C * jax.nn.sigmoid(r) * jax.nn.softplus(a_param)
  factor = bounded_sqrt(-jnp.expm1(2 * log_a))
  if reset is not None:
    factor = jnp.where(reset[..., None], 1.0, factor)
  return jnp.exp(log_a), factor * jax.nn.sigmoid(i) * u


@jax.custom_jvp
def bounded_sqrt(x: Float[Array, "..."]) -> Float[Array, "..."]:
  """sqrt(x) for x >= 0, with a slope of at most MAX_SLOPE."""
  return jnp.sqrt(x)


@bounded_sqrt.defjvp
def _bounded_sqrt_jvp(primals, tangents):
  (x,), (dx,) = primals, tangents
  return jnp.sqrt(x), dx * 0.5 * jax.lax.rsqrt(jnp.maximum(x, 0.25 / MAX_SLOPE**2))
