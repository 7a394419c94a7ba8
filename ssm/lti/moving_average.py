"""Mega's damped moving averages, several in each channel, over the past or over both sides.

Ma et al. 2022, arXiv:2209.10655, eq. (2).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.inputs import Lengths, Reset
from kernels.linear_scan import linear_scan
from layers import reversal


class Average(NamedTuple):
  """The parameters of the averages in one direction."""

  alpha: Float[Array, "d n"]
  delta: Float[Array, "d n"]
  beta: Float[Array, "d n"]
  gamma: Float[Array, "d n"]


def from_the_past(
  x: Float[Array, "b t d"], h: Float[Array, "b d n"], average: Average, *, reset: Reset = None, lengths: Lengths = None
) -> tuple[Float[Array, "b t d"], Float[Array, "b d n"]]:
  """gamma . h_t / sqrt(n) with h_t = (1 - p a) h_{t-1} + p beta x_t, p = sigmoid(alpha), a = sigmoid(delta); and h."""
  d, n = average.alpha.shape
  p = jax.nn.sigmoid(average.alpha)
  decay = 1 - p * jax.nn.sigmoid(average.delta)
  flat = lambda z: z.reshape(*z.shape[:-2], d * n)
  inputs = flat(p * average.beta * x[..., None])
  averages, last = linear_scan(flat(decay), inputs, flat(h), reset=reset, lengths=lengths)
  y = jnp.einsum("btdn,dn->btd", averages.reshape(*x.shape, n), average.gamma * n**-0.5)
  return y, last.reshape(h.shape)


def from_both_sides(
  x: Float[Array, "b t d"], averages: Average, *, reset: Reset = None, lengths: Lengths = None
) -> Float[Array, "b t d"]:
  """Returns the sum of an average over the past and one over the future, both with the current token."""
  past, future = (Average(*(z[way] for z in averages)) for way in (0, 1))
  empty = jnp.zeros((x.shape[0], *past.alpha.shape), past.alpha.dtype)
  order = reversal.order(x.shape[0], x.shape[1], lengths)
  ends = None if reset is None else reversal.at(reversal.last_of_document(reset), order)
  y, _ = from_the_past(x, empty, past, reset=reset, lengths=lengths)
  back, _ = from_the_past(reversal.at(x, order), empty, future, reset=ends, lengths=lengths)
  return y + reversal.at(back, order)
