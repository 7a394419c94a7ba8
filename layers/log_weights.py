"""Sums whose weights are exponentials, scaled by the largest weight so far so that none overflows.

As in xLSTM, Beck et al. 2024, arXiv:2405.04517, eqs. (15)-(17), whose m is the logarithm of the largest.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels import inputs
from kernels.max_scan import EMPTY, max_scan
from layers.lengths import last_of


class Weights(NamedTuple):
  """For S_t = a_t S_{t-1} + e^{x_t} z_t: S_t e^-after_t = e^log_keep_t S_{t-1} e^-before_t + new_t z_t."""

  log_keep: Float[Array, "b t n"]  # at most 0, but for rounding
  new: Float[Array, "b t n"]  # at most 1
  before: Float[Array, "b t n"]  # the logarithm of the largest weight before the token, EMPTY where there is none
  after: Float[Array, "b t n"]  # the logarithm of the largest weight, the token's included


def scaled(
  log_a: Float[Array, "b t n"],
  x: Float[Array, "b t n"],
  m: Float[Array, "b n"],
  *,
  reset: inputs.Reset = None,
  lengths: inputs.Lengths = None,
) -> tuple[Weights, Float[Array, "b n"]]:
  """Returns the weights of every token, and each row's last `after`.

  Args:
    m: the last `after` of the tokens before; EMPTY if there are none.
  """
  if lengths is not None:
    # in a row without tokens x would be infinitely larger than any weight there
    x = jnp.where(inputs.valid(lengths, x.shape[1])[..., None], x, EMPTY)
  after = max_scan(log_a, x, m, reset=reset, lengths=lengths)
  rows = jnp.concatenate([m[:, None], after], axis=1)
  before = rows[:, :-1] if reset is None else jnp.where(reset[..., None], EMPTY, rows[:, :-1])
  last = rows[:, -1] if lengths is None else last_of(after, m, lengths)
  # a small difference plus a small number, both exact: the rounding of `after` then changes nothing
  return Weights(log_a + (before - after), jnp.exp(x - after), before, after), last
