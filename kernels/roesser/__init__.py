"""The impulse response of a state space with two states, one that moves along rows and one that moves down columns."""

from jaxtyping import Array, Float, Inexact

from kernels import dispatch, inputs
from kernels.roesser import reference, xla
from mistake import Mistake

IMPLS = {"xla": (xla.roesser, dispatch.always), "reference": (reference.roesser, dispatch.always)}


def roesser(
  A: Inexact[Array, "four e n"],
  B: Inexact[Array, "two e n"],
  C: Inexact[Array, "two e n"],
  rows: int,
  columns: int,
  *,
  inside: float = 1.0,
  impl: str = "auto",
) -> Float[Array, "e i j"]:
  """K_ij = Re sum_n (C_1 h_ij + C_2 v_ij)  for i < rows, j < columns, with
  h_ij = A_1 h_i,j-1 + A_2 v_i,j-1 + B_1 u_ij,  v_ij = A_3 h_i-1,j + A_4 v_i-1,j + B_2 u_ij  and  u = 1 at 0, 0, else 0.

  Roesser 1975; Baron, Zimerman & Wolf 2023, arXiv:2306.06635. Real or complex, in at least float32; differentiable in
  A, B and C.

  Args:
    inside: factor on what arrives where neither i nor j is 0. At 1/2, h and v there are means of two terms and do not
      grow with |A| < 1.

  Raises:
    ValueError: a side is below 1.
  """
  if min(rows, columns) < 1:
    raise Mistake(f"roesser: rows={rows}, columns={columns}; both must be at least 1")
  dtype = inputs.compute_dtype(A, B, C)
  A, B, C = (z.astype(dtype) for z in (A, B, C))
  return dispatch.pick("roesser", IMPLS, impl, A, B, C, rows, columns, inside)(A, B, C, rows, columns, inside)
