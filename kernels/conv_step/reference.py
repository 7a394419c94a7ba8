"""The definition of `conv_step`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def conv_step(
  x: Float[Array, "b e"],
  taps: Float[Array, "b v e"],
  kernel: Float[Array, "w e"],
  bias: Float[Array, "e"] | None,
  activation: str,
) -> tuple[Float[Array, "b e"], Float[Array, "b v e"]]:
  """y = act(bias + sum_i kernel_i window_i)."""
  window = jnp.concatenate([taps, x[:, None]], axis=1)
  y = jnp.sum(window * kernel, axis=1)
  y = y if bias is None else y + bias
  return jax.nn.silu(y) if activation == "silu" else y, window[:, 1:]
