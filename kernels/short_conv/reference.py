"""The definition of `short_conv`."""

import jax.numpy as jnp

from kernels import inputs, op


def short_conv(x, kernel, taps, bias, reset, lengths):
  """y_t = bias + sum_i kernel_i x_{t-(w-1)+i}.

  The window is emptied where `reset` is True, and stands still past `lengths`.
  """
  valid = None if lengths is None else inputs.valid(lengths, x.shape[1])

  def token(taps, inputs):
    x, reset, valid = inputs
    window = jnp.concatenate([op.cleared(reset, taps), x[:, None]], axis=1)
    y = (kernel * window).sum(1)
    after = window[:, 1:] if valid is None else jnp.where(valid[:, None, None], window[:, 1:], taps)
    return after, y if bias is None else y + bias

  return op.loop(token, taps, (x, reset, valid))
