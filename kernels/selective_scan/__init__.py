"""Mamba's selective state space (S6): discretise, scan and read out, without a `b t e n` array in slow memory."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from kernels import dispatch, inputs, op, sequence_parallel
from kernels.discretize import RULES, discretize, not_real_euler
from kernels.selective_scan import associative, cpp, reference, xla
from kernels.selective_scan.around import around
from kernels.selective_step import selective_step
from mistake import Mistake

__all__ = ["IMPLS", "RULES", "discretize", "selective_scan"]

IMPLS: dispatch.Impls = {
  "cpp": (cpp.selective_scan, cpp.why_not),
  "xla": around(xla.selective_scan, not_real_euler),
  "pallas_gpu": dispatch.imported("kernels.selective_scan.pallas_gpu", "selective_scan"),
  "pallas_tpu": dispatch.imported("kernels.selective_scan.pallas_tpu", "selective_scan"),
  "associative": around(associative.selective_scan),
  "reference": around(reference.selective_scan),
}


def _transition(x, dt, A, B, C, h, D, z, reset, softplus, disc):
  dt = dt.astype(h.real.dtype)
  T = jnp.exp((jax.nn.softplus(dt) if softplus else dt).sum(axis=1)[..., None] * A)
  return T if reset is None else op.cleared(reset.any(axis=1), T)


OVER = sequence_parallel.Over(
  ("b t e", "b t e", "e n", "b t g n", "b t g n", "b e n", "e", "b t e", "b t", None, None),
  "b t e",
  state=5,
  exchange=sequence_parallel.Linear(_transition),
)


def selective_scan(
  x: Float[Array, "b t e"],
  dt: Float[Array, "b t e"],
  A: Inexact[Array, "e n"],
  B: Inexact[Array, "b t g n"],
  C: Inexact[Array, "b t g n"],
  h: Inexact[Array, "b e n"],
  D: Float[Array, "e"] | None = None,
  z: Float[Array, "b t e"] | None = None,
  *,
  softplus: bool = False,
  disc: str = "euler",
  reset: inputs.Reset = None,
  lengths: inputs.Lengths = None,
  impl: str = "auto",
) -> tuple[Float[Array, "b t e"], Inexact[Array, "b e n"]]:
  """h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t;  y_t = (Re(C_t . h_t) + D x_t) SiLU(z_t);  returns all y and the last h.

  Gu & Dao 2023, arXiv:2312.00752, algorithm 2 and the gate of fig. 3. C . h is a sum of products, nothing is
  conjugated; states that stand for conjugate pairs want a factor 2 in C.

  Args:
    dt: step sizes, positive already, or any numbers if `softplus` makes them so.
    A, B, C, h: real or complex.
    B, C: shared by the e/g channels of a group; g divides e.
    D, z: without them, no skip and no gate.
    disc: how the input is discretised: "euler", dt B as above (the authors' code), or "zoh", (exp(dt A) - 1) / A B
      (their text).
    h, reset, lengths, impl: as in all ops, see `kernels`.

  Raises:
    ValueError: g does not divide e; `disc` is unknown.
  """
  if disc not in RULES:
    raise Mistake(f"selective_scan: disc={disc!r}; choose from {list(RULES)}")
  if x.shape[-1] % B.shape[2]:
    raise Mistake(f"selective_scan: {x.shape[-1]} channels in {B.shape[2]} groups; make the groups divide them")
  dtype = inputs.compute_dtype(x, dt, A, B, C, h, D, z)
  where = op.rows(x.shape[1], reset, lengths)
  # At padding dt = 0 makes the decay 1 and the input 0.
  x, B, C, z = where.fill(x, B, C, z)
  (dt,) = where.fill(dt, value=-jnp.inf if softplus else 0)
  # What is as large as x stays as it lies in memory: whatever reads it casts it.
  A, B, C, h = op.cast(dtype, A, B, C, h)
  (D,) = op.cast(h.real.dtype, D)
  args = x, dt, A, B, C, h, D, z, where.reset, softplus, disc
  return op.run("selective_scan", IMPLS, impl, args, where, out=x, state=h, one_token=_one_token, over=OVER)


def _one_token(x, dt, A, B, C, h, D, z, reset, softplus, disc):
  """Computes one token with `selective_step`, in place of an implementation of `IMPLS`."""
  rest = None if z is None else z[:, 0]
  token = x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], D, rest, op.cleared(reset, h)
  y, h = selective_step(*token, softplus=softplus, disc=disc)
  return y[:, None], h
