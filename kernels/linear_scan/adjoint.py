"""The gradient of `linear_scan`, which is the same scan run backwards: what its implementations share.

With y_bar the cotangent of y and s_t that of h_t through h_{t+1}:

  x_bar_t = y_bar_t + s_t,   s_{t-1} = a_t x_bar_t,   a_bar_t = x_bar_t h_{t-1},

where s_T is the cotangent of the returned state and s_0 that of the initial one. The states h are the outputs, so
nothing but inputs and outputs is kept for it, and nothing is recomputed.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from kernels.kept_states import named


def differentiable(forward: Callable, backward: Callable) -> Callable:
  """Returns the differentiable `scan(a, x, h, reset)` of two loops that know nothing of each other.

  `forward(a, x, h, reset)` returns (all h_t, the last h), and `backward(a, h, y, reset, y_bar, s_T)` returns
  (a_bar, x_bar, s_0), where h is the state before the first token and y all h_t.
  """

  @jax.custom_vjp
  def scan(a, x, h, reset):
    return forward(a, x, h, reset)

  def save(a, x, h, reset):
    y, last = named(forward(a, x, h, reset))
    return (y, last), (a, h, y, reset)

  scan.defvjp(save, lambda saved, cotangents: (*backward(*saved, *cotangents), None))
  return scan


def decay_bar(a, h, y, reset, x_bar):
  """Returns a_bar for all tokens from x_bar; for a constant decay, their sum."""
  before = jnp.concatenate([h[:, None], y[:, :-1]], axis=1)
  if reset is not None:
    before = jnp.where(reset[..., None], 0, before)
  a_bar = x_bar * before
  return a_bar.sum((0, 1)) if a.ndim == 1 else a_bar
