"""One token of Mamba-2 between its projections, for decoding: `ssd` with what stands around it."""

from jaxtyping import Array, Float

from kernels import dispatch, inputs
from kernels.gated_norm import ORDERS
from kernels.ssd_step import cpp, reference
from mistake import Mistake

NORMS = (*ORDERS, "none")
IMPLS: dispatch.Impls = {
  "cpp": (cpp.ssd_step, cpp.why_not),
  "pallas_gpu": dispatch.imported("kernels.ssd_step.pallas_gpu", "ssd_step"),
  "pallas_tpu": dispatch.imported("kernels.ssd_step.pallas_tpu", "ssd_step"),
  "reference": (reference.ssd_step, dispatch.always),
}


def ssd_step(
  x: Float[Array, "b m"],
  z: Float[Array, "b e"],
  dt: Float[Array, "b h"],
  taps: Float[Array, "b v m"],
  S: Float[Array, "b h k p"],
  *,
  kernel: Float[Array, "w m"],
  bias: Float[Array, "m"] | None,
  A: Float[Array, "h"],
  D: Float[Array, "h q"],
  scale: Float[Array, "e"] | None,
  norm: str,
  norm_groups: int = 1,
  eps: float = 1e-5,
  impl: str = "auto",
) -> tuple[Float[Array, "b e"], Float[Array, "b v m"], Float[Array, "b h k p"]]:
  """S <- exp(dt A) S + B (dt u)^T;  y = norm(S^T C + D u, gated by SiLU(z));  returns y, the taps and S.

  [u, B, C] is x after its convolution and SiLU (`conv_step`), u of e = h p channels. Dao & Gu 2024, arXiv:2405.21060,
  sec. 7. Computed in at least float32; y has the dtype of x, the taps keep theirs, the returned state has that of the
  computation. The kernels update the state in place; those for TPUs and GPUs do so with the
  taps, too, and have no gradients.

  Args:
    x: its m - e channels for B and C are those of g groups, each shared by h/g neighbouring heads.
    dt: step sizes, positive already.
    taps: the w - 1 inputs of the convolution before x, oldest first.
    A: negative.
    D: q is 1, one for all channels of a head, or p.
    scale: of the norm; None without one.
    norm, norm_groups, eps: see `gated_norm`; norm="none" is the gate alone.

  Raises:
    ValueError: `norm` is unknown; `scale` is there without a norm, or is not with one.
  """
  if norm not in NORMS:
    raise Mistake(f"ssd_step: norm={norm!r}; choose from {list(NORMS)}")
  if (scale is None) != (norm == "none"):
    raise Mistake(f"ssd_step: norm={norm!r} {'needs' if scale is None else 'has'} a scale")
  dtypes = x.dtype, taps.dtype
  dtype = inputs.compute_dtype(x, z, dt, taps, S, kernel, A, D)
  cast = lambda m: None if m is None else m.astype(dtype)
  args = *map(cast, (x, z, dt, taps, S, kernel, bias, A, D, scale)), norm, norm_groups, eps
  y, taps, S = dispatch.pick("ssd_step", IMPLS, impl, *args)(*args)
  return y.astype(dtypes[0]), taps.astype(dtypes[1]), S
