"""Initial values of parameters, as Flax wants them: functions of (key, shape, dtype)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mistake import Mistake

Initializer = Callable[..., Any]


def inverse_softplus(y: Float[Array, "..."]) -> Float[Array, "..."]:
  """Returns x with log(1 + e^x) = y, accurate for small and large y > 0."""
  return y + jnp.log(-jnp.expm1(-y))


def constant(values) -> Initializer:
  """Initialises with an array, broadcast to the shape."""
  return lambda key, shape, dtype=jnp.float32: jnp.broadcast_to(jnp.asarray(values, dtype), shape)


def log_uniform(low: float, high: float) -> Initializer:
  """log a for a uniform in [low, high].

  Raises:
    ValueError: not 0 < low <= high.
  """
  if not 0 < low <= high:
    raise Mistake(f"log_uniform: low={low}, high={high}; a logarithm needs 0 < low <= high")
  return lambda key, shape, dtype=jnp.float32: jnp.log(jax.random.uniform(key, shape, dtype, low, high))


def log_step(dt_min: float, dt_max: float) -> Initializer:
  """log dt for dt log-uniform in [dt_min, dt_max].

  Raises:
    ValueError: not 0 < dt_min <= dt_max.
  """
  _check_range(dt_min, dt_max)

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, jnp.log(dt_min), jnp.log(dt_max))

  return init


def softplus_step(dt_min: float, dt_max: float, floor: float = 0.0) -> Initializer:
  """b with softplus(b) = max(dt, floor), for dt log-uniform in [dt_min, dt_max].

  Raises:
    ValueError: not 0 < dt_min <= dt_max.
  """
  log_dt = log_step(dt_min, dt_max)

  def init(key, shape, dtype=jnp.float32):
    return inverse_softplus(jnp.maximum(jnp.exp(log_dt(key, shape, dtype)), floor))

  return init


def ring(r_min: float, r_max: float) -> Initializer:
  """-log |z| for z uniform over the area between the circles of radius r_min and r_max.

  Orvieto et al. 2023, arXiv:2303.06349, lemma 3.2. Drawn as 1 - |z|^2, which near the unit circle keeps its digits.

  Raises:
    ValueError: not 0 <= r_min < r_max <= 1.
  """
  if not 0 <= r_min < r_max <= 1:
    raise Mistake(f"r_min={r_min}, r_max={r_max}: a ring needs 0 <= r_min < r_max <= 1")

  def init(key, shape, dtype=jnp.float32):
    # neither 0 nor 1, whose logarithms of logarithms are infinite
    eps = jnp.finfo(dtype).eps
    below_one = jax.random.uniform(key, shape, dtype, 1 - r_max**2, 1 - r_min**2)
    return -0.5 * jnp.log1p(-jnp.clip(below_one, eps, 1 - eps))

  return init


def uniform_fan_in(fan_in: int | None = None, gain: float = 1.0) -> Initializer:
  """U(-gain / sqrt(fan_in), gain / sqrt(fan_in)): what PyTorch gives linear and convolution layers, weights and biases.

  Args:
    fan_in: the second to last size of the shape if not given (a bias does not know it).
  """

  def init(key, shape, dtype=jnp.float32):
    bound = gain * (shape[-2] if fan_in is None else fan_in) ** -0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


def _check_range(dt_min: float, dt_max: float) -> None:
  if not 0 < dt_min <= dt_max:
    raise Mistake(f"dt_min={dt_min}, dt_max={dt_max}: steps need 0 < dt_min <= dt_max")
