"""The gradient of `linear_scan`, which is the same scan run backwards: written once for every implementation.

With y_bar the cotangent of y and s_t that of h_t through h_{t+1}:

  x_bar_t = y_bar_t + s_t,   s_{t-1} = a_t x_bar_t,   a_bar_t = x_bar_t h_{t-1},

where s_T is the cotangent of the returned state and s_0 that of the initial one. The states h are the outputs, so
nothing but inputs and outputs is kept for it, and nothing is recomputed.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def differentiable(run: Callable) -> Callable:
  """Turns `run(a, x, h, keep, reverse)`, which knows both directions, into the differentiable `scan(a, x, h, keep)`.

  Forwards `run` returns (all h_t, the last h); in reverse, with y_bar for x and s_T for h, (all x_bar_t, s_0).
  """

  @jax.custom_vjp
  def scan(a, x, h, keep):
    return run(a, x, h, keep, reverse=False)

  def forward(a, x, h, keep):
    y, last = run(a, x, h, keep, reverse=False)
    return (y, last), (a, h, keep, y)

  def backward(saved, cotangents):
    a, h, keep, y = saved
    x_bar, h_bar = run(a, *cotangents, keep, reverse=True)
    before = jnp.concatenate([h[:, None], y[:, :-1]], axis=1)
    if keep is not None:
      before = jnp.where(keep[..., None], before, 0)
    a_bar = x_bar * before
    return a_bar.sum((0, 1)) if a.ndim == 1 else a_bar, x_bar, h_bar, None

  scan.defvjp(forward, backward)
  return scan
