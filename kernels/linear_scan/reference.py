"""The definition of `linear_scan`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Inexact


def linear_scan(
  a: Inexact[Array, "b t n"] | Inexact[Array, "n"],
  x: Inexact[Array, "b t n"],
  h: Inexact[Array, "b n"],
  keep: Bool[Array, "b t"] | None,
) -> tuple[Inexact[Array, "b t n"], Inexact[Array, "b n"]]:
  """h_t = a_t * h_{t-1} + x_t, with h_{t-1} = 0 where `keep` is False."""
  a = jnp.broadcast_to(a, x.shape)
  keep = jnp.ones(x.shape[:2], bool) if keep is None else keep

  def step(h, inputs):
    a, x, keep = inputs
    h = a * jnp.where(keep[:, None], h, 0) + x
    return h, h

  h, y = jax.lax.scan(step, h, tuple(z.swapaxes(0, 1) for z in (a, x, keep)))
  return y.swapaxes(0, 1), h
