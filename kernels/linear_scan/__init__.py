"""h_t = a_t * h_{t-1} + x_t, elementwise: the recurrence of S5, LRU, RG-LRU and their kin."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Inexact, Int

from kernels import dispatch, inputs
from kernels.linear_scan import associative, pallas_gpu, pallas_tpu, reference, xla

IMPLS: dispatch.Impls = {
  "xla": (xla.linear_scan, dispatch.always),
  "pallas_gpu": (pallas_gpu.linear_scan, pallas_gpu.why_not),
  "pallas_tpu": (pallas_tpu.linear_scan, pallas_tpu.why_not),
  "associative": (associative.linear_scan, dispatch.always),
  "reference": (reference.linear_scan, dispatch.always),
}


def linear_scan(
  a: Inexact[Array, "b t n"] | Inexact[Array, "n"],
  x: Inexact[Array, "b t n"],
  h: Inexact[Array, "b n"],
  *,
  reset: Bool[Array, "b t"] | None = None,
  lengths: Int[Array, "b"] | None = None,
  impl: str = "auto",
) -> tuple[Inexact[Array, "b t n"], Inexact[Array, "b n"]]:
  """y_t = h_t = a_t * h_{t-1} + x_t; returns all y and the state after the last token. Differentiable in a, x and h.

  Real or complex; computed in at least float32 (complex64). y has the dtype of x (complex if a or h is); the returned
  state keeps the dtype of the computation.

  Args:
    a: the decay, one per token or one for all tokens (never broadcast over time then).
    h: the state before the first token.
    reset: True where a document starts: the state is cleared before that token.
    lengths: tokens that are there per row; past them y is 0 and the state stands still.
    impl: "auto" or a name in IMPLS.

  Raises:
    ValueError: `impl` does not exist or cannot run these arguments.
  """
  dtype = inputs.compute_dtype(a, x, h)
  y_dtype = dtype if jnp.issubdtype(dtype, jnp.complexfloating) else x.dtype
  if lengths is not None:
    here = inputs.valid(lengths, x.shape[1])
    (x,) = inputs.blank(here, x)
    if a.ndim == 3:
      (a,) = inputs.blank(here, a)
  a, x, h = (z.astype(dtype) for z in (a, x, h))
  if x.shape[1] == 0:
    return x.astype(y_dtype), h
  keep = None if reset is None else ~reset
  y, h_last = dispatch.pick("linear_scan", IMPLS, impl, a, x, h, keep)(a, x, h, keep)
  if lengths is not None:
    # Every state is an output, so the one at each row's end can be read off.
    end = jnp.clip(lengths - 1, 0, x.shape[1] - 1)
    last = jnp.take_along_axis(y, end[:, None, None], axis=1)[:, 0]
    h_last = jnp.where((lengths > 0)[:, None], last, h)
    (y,) = inputs.blank(here, y)
  return y.astype(y_dtype), h_last
