"""One token of `short_conv`, for decoding."""

from jaxtyping import Array, Float

from kernels import dispatch, inputs
from kernels.conv_step import reference
from mistake import Mistake

ACTIVATIONS = ("none", "silu")
IMPLS: dispatch.Impls = {
  "pallas_gpu": dispatch.imported("kernels.conv_step.pallas_gpu", "conv_step"),
  "pallas_tpu": dispatch.imported("kernels.conv_step.pallas_tpu", "conv_step"),
  "reference": (reference.conv_step, dispatch.always),
}


def conv_step(
  x: Float[Array, "b e"],
  taps: Float[Array, "b v e"],
  kernel: Float[Array, "w e"],
  *,
  bias: Float[Array, "e"] | None = None,
  activation: str = "none",
  impl: str = "auto",
) -> tuple[Float[Array, "b e"], Float[Array, "b v e"]]:
  """y = act(bias + sum_{i<w} kernel_i window_i) with the window [taps, x]; returns y and the window's last w - 1 rows.

  Computed in at least float32; y has the dtype of x, the returned taps that of the taps given. The kernels update the
  taps in place and have no gradients.

  Args:
    taps: the w - 1 inputs before x, oldest first.
    activation: "none" or "silu".

  Raises:
    ValueError: the taps are not w - 1; `activation` is unknown.
  """
  w, v = kernel.shape[0], taps.shape[1]
  if v != w - 1:
    raise Mistake(f"conv_step: {v} taps carried for a kernel of width {w}; it needs {w - 1}")
  if activation not in ACTIVATIONS:
    raise Mistake(f"conv_step: activation={activation!r}; choose from {list(ACTIVATIONS)}")
  y_dtype, taps_dtype = x.dtype, taps.dtype
  dtype = inputs.compute_dtype(x, taps, kernel)
  x, taps, kernel = (z.astype(dtype) for z in (x, taps, kernel))
  bias = None if bias is None else bias.astype(dtype)
  args = x, taps, kernel, bias, activation
  y, taps = dispatch.pick("conv_step", IMPLS, impl, *args)(*args)
  return y.astype(y_dtype), taps.astype(taps_dtype)
