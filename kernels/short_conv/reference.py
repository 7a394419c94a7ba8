"""The definition of `short_conv`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def short_conv(
  x: Float[Array, "b t e"],
  kernel: Float[Array, "w e"],
  taps: Float[Array, "b v e"],
  keep: Bool[Array, "b t"] | None,
  lengths: Int[Array, "b"] | None,
) -> tuple[Float[Array, "b t e"], Float[Array, "b v e"]]:
  """y_t = sum_i kernel_i x_{t-(w-1)+i} over a sliding window, emptied where `keep` is False, still past `lengths`."""
  b, t, _ = x.shape
  keep = jnp.ones((b, t), bool) if keep is None else keep
  here = jnp.ones((b, t), bool) if lengths is None else jnp.arange(t) < lengths[:, None]

  def step(taps, inputs):
    x, keep, here = inputs
    window = jnp.concatenate([jnp.where(keep[:, None, None], taps, 0), x[:, None]], axis=1)
    return jnp.where(here[:, None, None], window[:, 1:], taps), jnp.einsum("we,bwe->be", kernel, window)

  taps, y = jax.lax.scan(step, taps, tuple(z.swapaxes(0, 1) for z in (x, keep, here)))
  return y.swapaxes(0, 1), taps
