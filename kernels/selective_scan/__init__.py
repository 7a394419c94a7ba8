"""Mamba's selective state space (S6): discretise, scan and read out, without a `b t e n` array in slow memory."""

from jaxtyping import Array, Bool, Float, Inexact, Int

from kernels import dispatch, inputs
from kernels.selective_scan import associative, cpp, pallas_gpu, pallas_tpu, reference, xla
from kernels.selective_scan.discretize import RULES, discretize

__all__ = ["IMPLS", "RULES", "discretize", "selective_scan"]

IMPLS: dispatch.Impls = {
  "cpp": (cpp.selective_scan, cpp.why_not),
  "xla": (xla.selective_scan, xla.why_not),
  "pallas_gpu": (pallas_gpu.selective_scan, pallas_gpu.why_not),
  "pallas_tpu": (pallas_tpu.selective_scan, pallas_tpu.why_not),
  "associative": (associative.selective_scan, dispatch.always),
  "reference": (reference.selective_scan, dispatch.always),
}


def selective_scan(
  x: Float[Array, "b t e"],
  dt: Float[Array, "b t e"],
  A: Inexact[Array, "e n"],
  B: Inexact[Array, "b t g n"],
  C: Inexact[Array, "b t g n"],
  h: Inexact[Array, "b e n"],
  *,
  disc: str = "euler",
  reset: Bool[Array, "b t"] | None = None,
  lengths: Int[Array, "b"] | None = None,
  impl: str = "auto",
) -> tuple[Float[Array, "b t e"], Inexact[Array, "b e n"]]:
  """h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t;  y_t = Re(C_t . h_t);  returns all y and the last h.

  Gu & Dao 2023, arXiv:2312.00752, algorithm 2, without the skip D and the gate. Computed in at least float32; y has the
  dtype of x, the returned state that of the computation. Differentiable in all six arrays. C . h is a sum of products,
  nothing is conjugated; states that stand for conjugate pairs want a factor 2 in C.

  Args:
    dt: step sizes, positive already.
    A, B, C, h: real or complex.
    B, C: shared by the e/g channels of a group; g divides e.
    h: the state before the first token.
    disc: how the input is discretised: "euler", dt B as above (the authors' code), or "zoh", (exp(dt A) - 1) / A B
      (their text).
    reset: True where a document starts: the state is cleared before that token.
    lengths: tokens that are there per row; past them y is 0 and the state stands still.
    impl: "auto" or a name in IMPLS.

  Raises:
    ValueError: g does not divide e; `disc` is unknown; `impl` does not exist or cannot run these arguments.
  """
  if disc not in RULES:
    raise ValueError(f"selective_scan: disc={disc!r}; choose from {list(RULES)}")
  if x.shape[-1] % B.shape[2]:
    raise ValueError(f"selective_scan: {x.shape[-1]} channels in {B.shape[2]} groups; make the groups divide them")
  dtype, y_dtype = inputs.compute_dtype(x, dt, A, B, C, h), x.dtype
  if lengths is not None:
    here = inputs.valid(lengths, x.shape[1])
    # With dt = 0 the decay is 1 and the input 0; what is not there starts no document.
    x, dt, B, C = inputs.blank(here, x, dt, B, C)
    reset = None if reset is None else reset & here
  A, B, C, h = (z.astype(dtype) for z in (A, B, C, h))
  x, dt = (z.astype(h.real.dtype) for z in (x, dt))
  if x.shape[1] == 0:
    return x.astype(y_dtype), h
  keep = None if reset is None else ~reset
  y, h_last = dispatch.pick("selective_scan", IMPLS, impl, x, dt, A, B, C, h, keep, disc)(x, dt, A, B, C, h, keep, disc)
  if lengths is not None:
    (y,) = inputs.blank(here, y)
  return y.astype(y_dtype), h_last
