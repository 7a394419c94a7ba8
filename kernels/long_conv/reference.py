"""The definition of `long_conv`."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def long_conv(
  u: Float[Array, "b t e"],
  k: Float[Array, "e l"],
  k_back: Float[Array, "e m"] | None,
  keep: Bool[Array, "b t"] | None,
) -> Float[Array, "b t e"]:
  """One Toeplitz matrix per channel and direction, blanked where two tokens belong to different documents."""
  b, t, _ = u.shape
  document = jnp.zeros((b, t), int) if keep is None else jnp.cumsum(~keep, axis=1)
  same = document[:, :, None] == document[:, None, :]
  lag = jnp.arange(t)[:, None] - jnp.arange(t)
  y = jnp.einsum("ets,bts,bse->bte", _taps(k, lag), same.astype(u.dtype), u)
  if k_back is not None:
    y = y + jnp.einsum("ets,bts,bse->bte", _taps(k_back, -lag), same.astype(u.dtype), u)
  return y


def _taps(k: Float[Array, "e l"], lag) -> Float[Array, "e t s"]:
  """k at every lag, 0 where it has no such tap."""
  known = (lag >= 0) & (lag < k.shape[1])
  return jnp.where(known, k[:, jnp.where(known, lag, 0)], 0)
