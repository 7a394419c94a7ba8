"""One token of `selective_scan` with what stands around it in Mamba, for decoding."""

from jaxtyping import Array, Float, Inexact

from kernels import dispatch, inputs, op
from kernels.discretize import RULES
from kernels.selective_step import cpp, reference
from mistake import Mistake

IMPLS: dispatch.Impls = {
  "cpp": (cpp.selective_step, cpp.why_not),
  "pallas_gpu": dispatch.imported("kernels.selective_step.pallas_gpu", "selective_step"),
  "pallas_tpu": dispatch.imported("kernels.selective_step.pallas_tpu", "selective_step"),
  "reference": (reference.selective_step, dispatch.always),
}


def selective_step(
  x: Float[Array, "b e"],
  dt: Float[Array, "b e"],
  A: Inexact[Array, "e n"],
  B: Inexact[Array, "b g n"],
  C: Inexact[Array, "b g n"],
  D: Float[Array, "e"] | None,
  z: Float[Array, "b e"] | None,
  h: Inexact[Array, "b e n"],
  *,
  softplus: bool = False,
  disc: str = "euler",
  impl: str = "auto",
) -> tuple[Float[Array, "b e"], Inexact[Array, "b e n"]]:
  """h <- exp(dt A) h + dt x B;  y = (Re(C . h) + D x) SiLU(z);  returns y and h.

  What a step of Mamba (Gu & Dao 2023, arXiv:2312.00752) does after its convolution. The convolution is an op of its own
  (`conv_step`), as dt, B and C come from products with all of its outputs, which may lie on several devices.

  Computed in at least float32; y has the dtype of x, the returned state that of the computation. The kernels update the
  state in place; those for TPUs and GPUs have no gradients.

  Args:
    dt: step sizes, positive already, or any numbers if `softplus` makes them so.
    A, B, C, h: real or complex.
    B, C: shared by the e/g channels of a group; g divides e.
    D, z: without them, no skip and no gate.
    disc: see `selective_scan`.

  Raises:
    ValueError: g does not divide e; `disc` is unknown.
  """
  if disc not in RULES:
    raise Mistake(f"selective_step: disc={disc!r}; choose from {list(RULES)}")
  if x.shape[1] % B.shape[1]:
    raise Mistake(f"selective_step: {x.shape[1]} channels in {B.shape[1]} groups; make the groups divide them")
  dtype, y_dtype = inputs.compute_dtype(x, dt, A, B, C, D, z, h), x.dtype
  A, B, C, h = op.cast(dtype, A, B, C, h)
  x, dt, D, z = op.cast(h.real.dtype, x, dt, D, z)
  args = x, dt, A, B, C, D, z, h, softplus, disc
  y, h = dispatch.pick("selective_step", IMPLS, impl, *args)(*args)
  return y.astype(y_dtype), h
