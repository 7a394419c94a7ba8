"""S_t = a_t S_{t-1} + k_t v_t^T with one decay per head and token: linear attention with decay, Mamba-2's SSD."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels import decays, dispatch, inputs, nonfinite, op, products, sequence_parallel
from kernels.matrix_state import cpp
from kernels.ssd import reference, xla
from mistake import Mistake

IMPLS: dispatch.Impls = {
  "cpp": (products.widened(cpp.ssd, 3), cpp.why_not),
  "xla": (products.widened(xla.ssd, 3, products.factors), dispatch.always),
  "pallas_gpu": dispatch.imported("kernels.ssd.pallas_gpu", "ssd"),
  "pallas_tpu": dispatch.imported("kernels.ssd.pallas_tpu", "ssd", lambda form: products.widened(form, 3)),
  "reference": (products.widened(reference.ssd, 3), dispatch.always),
}


def _transition(q, k, v, log_a, S, reset):
  T = jnp.exp(log_a.sum(axis=1))[..., None, None]
  return T if reset is None else op.cleared(reset.any(axis=1), T)


OVER = sequence_parallel.Over(
  ("b t g k", "b t g k", "b t h p", "b t h", "b h k p", "b t"),
  "b t h p",
  state=4,
  exchange=sequence_parallel.Linear(_transition),
)


def ssd(
  q: Float[Array, "b t g k"],
  k: Float[Array, "b t g k"],
  v: Float[Array, "b t h p"],
  log_a: Float[Array, "b t h"],
  S: Float[Array, "b h k p"],
  *,
  reset: inputs.Reset = None,
  lengths: inputs.Lengths = None,
  impl: str = "auto",
) -> tuple[Float[Array, "b t h p"], Float[Array, "b h k p"]]:
  """S_t = exp(log_a_t) S_{t-1} + k_t v_t^T;  y_t = S_t^T q_t;  returns all y and the last S.

  Dao & Gu 2024, arXiv:2405.21060, eq. (6) with C = q, B = k, X = v (a step size belongs into v or k, and there is no
  skip). The form `pallas_gpu` rounds factors of products to bfloat16.

  Args:
    q, k: shared by the h/g consecutive heads of a group; g divides h.
    log_a: at most 0; a decay of exactly 0, minus infinity, is fine.
    S, reset, lengths, impl: as in all ops, see `kernels`.

  Raises:
    ValueError: g does not divide h.
  """
  if v.shape[2] % k.shape[2]:
    raise Mistake(f"ssd: {v.shape[2]} heads in {k.shape[2]} groups; make the groups divide them")
  dtype, where = inputs.compute_dtype(q, k, v, log_a, S), op.rows(v.shape[1], reset, lengths)
  # At padding the decay is 1 and the input 0.
  q, k, v, log_a = where.fill(q, k, v, log_a)
  log_a, S = op.cast(dtype, log_a, S)
  tokens, S, after = nonfinite.contain(where.reset, S, q, k, v, jnp.maximum(log_a, decays.least(dtype)))
  args = *tokens, S, where.reset
  one_token, _ = IMPLS["reference"]
  return op.run("ssd", IMPLS, impl, args, where, out=v, state=S, one_token=one_token, after=after, over=OVER)
