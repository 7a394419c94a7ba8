"""The definition of `linear_scan`."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Inexact

from kernels import op


def linear_scan(
  a: Inexact[Array, "b t n"] | Inexact[Array, "n"],
  x: Inexact[Array, "b t n"],
  h: Inexact[Array, "b n"],
  reset: Bool[Array, "b t"] | None,
) -> tuple[Inexact[Array, "b t n"], Inexact[Array, "b n"]]:
  """h_t = a_t * h_{t-1} + x_t, with h_{t-1} = 0 where `reset` is True."""
  a = jnp.broadcast_to(a, x.shape)

  def token(h, inputs):
    a, x, reset = inputs
    h = a * op.cleared(reset, h) + x
    return h, h

  return op.loop(token, h, (a, x, reset))
