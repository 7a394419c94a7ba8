"""`max_scan` by a parallel prefix."""

import jax
import jax.numpy as jnp


def max_scan(log_a, x, m):
  """Computes `reference.max_scan`."""
  log_a, x = jax.lax.associative_scan(_combine, (log_a, x), axis=1)
  return jnp.maximum(log_a + m[:, None], x)


def _combine(first, second):
  """m -> max(log_a + m, x), one after the other."""
  return first[0] + second[0], jnp.maximum(second[0] + first[1], second[1])
