"""The definition of `conv_step`."""

import jax
import jax.numpy as jnp


def conv_step(x, taps, kernel, bias, activation):
  """y = act(bias + sum_i kernel_i window_i)."""
  window = jnp.concatenate([taps, x[:, None]], axis=1)
  # written out, as XLA on a CPU computes a sum along an axis apart from what is around it
  y = sum(kernel[i] * window[:, i] for i in range(len(kernel)))
  y = y if bias is None else y + bias
  return jax.nn.silu(y) if activation == "silu" else y, window[:, 1:]
