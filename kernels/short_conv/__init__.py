"""Depthwise causal convolution with a few taps per channel, which can be stopped and resumed anywhere."""

import functools

from jaxtyping import Array, Float

from kernels import dispatch, inputs, op, sequence_parallel
from kernels.conv_step import conv_step
from kernels.short_conv import reference, xla
from mistake import Mistake

# Two ways to the gradient of the kernel; they are one forward.
IMPLS: dispatch.Impls = {
  **{name: (functools.partial(xla.short_conv, gradient=name), dispatch.always) for name in xla.GRADIENTS},
  "reference": (reference.short_conv, dispatch.always),
}


def short_conv(
  x: Float[Array, "b t e"],
  kernel: Float[Array, "w e"],
  taps: Float[Array, "b v e"],
  *,
  bias: Float[Array, "e"] | None = None,
  reset: inputs.Reset = None,
  lengths: inputs.Lengths = None,
  impl: str = "auto",
) -> tuple[Float[Array, "b t e"], Float[Array, "b v e"]]:
  """y_t = bias + sum_{i<w} kernel_i x_{t-(w-1)+i}; returns all y and the last w - 1 inputs.

  The returned taps have the dtype of the taps given.

  Args:
    kernel: the last row multiplies the current token.
    taps: the w - 1 inputs before the first token, oldest first; zeros for those of another document, as in the result.
    reset, lengths, impl: as in all ops, see `kernels`.

  Raises:
    ValueError: the taps are not w - 1.
  """
  w, v = kernel.shape[0], taps.shape[1]
  if v != w - 1:
    raise Mistake(f"short_conv: {v} taps carried for a kernel of width {w}; it needs {w - 1}")
  dtype, where = inputs.compute_dtype(x, kernel, taps), op.rows(x.shape[1], reset, lengths)
  args = *op.cast(dtype, *where.fill(x), kernel, taps, bias), where.reset, where.lengths
  axes = "b t e", "w e", "b v e", "e", "b t", "b"
  over = sequence_parallel.Over(axes, "b t e", 2, sequence_parallel.Neighbour(), lengths=5, least=max(2, v))
  y, last = op.run("short_conv", IMPLS, impl, args, where, out=x, state=taps, one_token=_one_token, over=over)
  return y, last.astype(taps.dtype)


def _one_token(x, kernel, taps, bias, reset, lengths):
  """Takes `conv_step`, which has kernels of its own, but masks nothing."""
  if reset is not None or lengths is not None:
    return reference.short_conv(x, kernel, taps, bias, reset, lengths)
  y, taps = conv_step(x[:, 0], taps, kernel, bias=bias)
  return y[:, None], taps
