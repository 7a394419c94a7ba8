"""The gates of RG-LRU and their gradient for kernels: in float32, by what chips have instructions for.

`rate` is C softplus(a_param), one number a channel. At the first token of a document the decay is 0 and the factor 1,
as from a log decay of minus infinity.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kernels.rg_lru.gates import MAX_SLOPE

TINY = 1e-37  # a number below it is nothing, and above 0, so that its inverse square root is finite


class Gates(NamedTuple):
  """The open gates of some tokens."""

  r: Float[Array, "*b e"]
  i: Float[Array, "*b e"]
  decay: Float[Array, "*b e"]
  lost: Float[Array, "*b e"]  # 1 - decay^2
  factor: Float[Array, "*b e"]  # its square root


def opened(r, i, rate, reset) -> Gates:
  """Returns the gates of tokens from what comes before their sigmoids."""
  r, i = (1 / (1 + jnp.exp(-z)) for z in (r, i))
  log_a = -rate * r
  decay = jnp.exp(log_a)
  # No difference of numbers near 1, where as many digits would be lost as the decay has nines.
  lost = jnp.where(log_a > -0.175, _small_loss(2 * log_a), 1 - decay * decay)
  factor = lost * lax.rsqrt(jnp.maximum(lost, TINY))
  return Gates(r, i, select(reset, decay, 0.0), lost, select(reset, factor, 1.0))


def pull(gates, u, rate, bar, before):
  """Returns cotangents of u, r, i and the rate by token, from that of h_t and from h_{t-1}, in this order."""
  entered = gates.i * u
  # of factor^2, by its bounded slope
  lost_bar = bar * entered * (0.5 * lax.rsqrt(jnp.maximum(gates.lost, 0.25 / MAX_SLOPE**2)))
  log_a_bar = gates.decay * (bar * before - 2 * gates.decay * lost_bar)
  rate_bar = -gates.r * log_a_bar
  flow = bar * gates.factor
  return flow * gates.i, rate * rate_bar * (1 - gates.r), flow * entered * (1 - gates.i), rate_bar


def select(reset, value, other):
  """Returns `other` where `reset` is True, else `value`; `value` everywhere if `reset` is None."""
  return value if reset is None else jnp.where(reset, other, value)


def _small_loss(x):
  """1 - exp(x) for -0.35 < x <= 0, by 7 terms of its series: the eighth is at most 2e-8 of the first."""
  series = 1 + x * (1 / 7)
  for n in (6, 5, 4, 3, 2):
    series = 1 + x * series * (1 / n)
  return -x * series
