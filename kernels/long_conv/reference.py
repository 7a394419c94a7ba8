"""The definitions of `long_conv` and `long_conv_nd`."""

import itertools

import jax.numpy as jnp


def long_conv(u, k, k_back, reset):
  """Multiplies by one Toeplitz matrix for each channel and direction, which is 0 between different documents."""
  b, t, _ = u.shape
  document = jnp.zeros((b, t), int) if reset is None else jnp.cumsum(reset, axis=1)
  same = document[:, :, None] == document[:, None, :]
  lag = jnp.arange(t)[:, None] - jnp.arange(t)
  y = jnp.einsum("ets,bts,bse->bte", _taps(k, lag), same.astype(u.dtype), u)
  if k_back is not None:
    y = y + jnp.einsum("ets,bts,bse->bte", _taps(k_back, -lag), same.astype(u.dtype), u)
  return y


def _taps(k, lag):
  """Returns k at every lag, 0 where it has no such tap."""
  known = (lag >= 0) & (lag < k.shape[1])
  return jnp.where(known, k[:, jnp.where(known, lag, 0)], 0)


def long_conv_nd(u, k, origin):
  """Adds up u moved by each tap's lag; what leaves the array is gone."""
  y = jnp.zeros_like(u)
  for tap in itertools.product(*map(range, k.shape[1:])):
    moved = u
    for axis, (index, zero) in enumerate(zip(tap, origin), 1):
      lag = index - zero
      came_from = jnp.arange(u.shape[axis]) - lag
      inside = (came_from >= 0) & (came_from < u.shape[axis])
      inside = inside.reshape([-1 if i == axis else 1 for i in range(u.ndim)])
      moved = jnp.where(inside, jnp.roll(moved, lag, axis), 0)
    y = y + k[(slice(None), *tap)] * moved
  return y
