"""Sums of poles in conjugate pairs at many points: what the spectrum of S4's kernel is made of."""

from jaxtyping import Array, Complex, Float

from kernels import dispatch, inputs
from kernels.cauchy import reference, xla

IMPLS: dispatch.Impls = {"xla": (xla.cauchy, dispatch.always), "reference": (reference.cauchy, dispatch.always)}


def cauchy(
  v: Complex[Array, "e k n"],
  a: Complex[Array, "e n"],
  p: Float[Array, "m"],
  q: Float[Array, "m"],
  *,
  impl: str = "auto",
) -> Complex[Array, "e k m"]:
  """y_km = sum_n v_kn / (i p_m - q_m a_n) + conj(v_kn) / (i p_m - q_m conj(a_n)).

  The points are i p/q, in two coordinates so that q = 0, at infinity, is one like the others. Computed in at least
  complex64, without an `e n m` array. Differentiable in v and a, whose real parts must be negative.
  """
  dtype = inputs.compute_dtype(v, a)
  v, a = v.astype(dtype), a.astype(dtype)
  p, q = p.astype(a.real.dtype), q.astype(a.real.dtype)
  return dispatch.pick("cauchy", IMPLS, impl, v, a, p, q)(v, a, p, q)
