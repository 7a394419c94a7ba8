"""x_t = A x_{t-1} + B u_t, y_t = Re(C x_t) with constant A: the recurrence of S4 and its kin, without `b t e n`."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from kernels import dispatch, inputs, op, products, sequence_parallel
from kernels.lti import cpp, reference, xla
from kernels.lti.cpp import by_token
from kernels.lti.system import FAR, System, plan
from mistake import Mistake

__all__ = ["FAR", "System", "by_token", "lti", "plan"]

IMPLS: dispatch.Impls = {
  "cpp": (cpp.lti, cpp.why_not),
  "lags": (functools.partial(xla.lti, within="lags"), dispatch.always),
  "products": (functools.partial(xla.lti, within="products"), xla.why_no_products),
  "reference": (reference.lti, dispatch.always),
}


def _transition(u, system, x, reset, lengths):
  """Returns A^t and which rows begin no document here. A shorter row has its end here, so nothing is passed on."""
  t, A = u.shape[1], system.A
  power = jax.lax.integer_pow(A, t) if A.ndim == 2 else jnp.linalg.matrix_power(A, t)
  return power, jnp.ones(x.shape[0], bool) if reset is None else ~reset.any(axis=1)


def _join(T, x, last):
  A, kept = T
  spec = "en,ben->ben" if A.ndim == 2 else "eij,bej->bei"
  return inputs.where(kept, jnp.einsum(spec, A, x, precision=jax.lax.Precision.HIGHEST), 0) + last


OVER = sequence_parallel.Over(
  ("b t e", "e", "b e n", "b t", "b"), "b t e", 2, sequence_parallel.Linear(_transition, _join), lengths=4
)


def _over(form, *args):
  # XLA 0.10.2 dies where devices sum up the gradient of a field that nothing reads, as it is a constant
  barred = lambda u, system, *rest: form(u, jax.lax.optimization_barrier(system), *rest)
  return OVER(barred, *args)


def lti(
  u: Float[Array, "b t e"],
  system: System,
  x: Inexact[Array, "b e n"],
  *,
  reset: inputs.Reset = None,
  lengths: inputs.Lengths = None,
  impl: str = "auto",
) -> tuple[Float[Array, "b t e"], Inexact[Array, "b e n"]]:
  """x_t = A x_{t-1} + B u_t;  y_t = Re(C x_t);  returns all y and the last x.

  Gu, Goel & Re 2021, arXiv:2111.00396, and all that followed. Differentiable in u, x and every field of the system.

  Args:
    system: with the chunk length that `plan` asks for (others work too), and as many taps or more.
    x, reset, lengths, impl: as in all ops, see `kernels`.

  Raises:
    ValueError: the system has too few taps.
  """
  t, l, c = u.shape[1], system.K.shape[1], system.O.shape[1]
  if l < min(t, c):
    raise Mistake(f"lti: {l} taps for {t} tokens in chunks of {c}; it needs {min(t, c)}, see `plan`")
  where, dtype = op.rows(t, reset, lengths), inputs.compute_dtype(x, *system)
  real = inputs.compute_dtype(u, system.K)
  (K,), factors = op.cast(real, system.K), products.factors(real, *where.fill(u))
  *rest, x = op.cast(dtype, *system[1:], x)
  args = *factors, System(K, *rest), x, where.reset, where.lengths
  return op.run("lti", IMPLS, impl, args, where, out=u, state=x, one_token=reference.lti, over=_over)
