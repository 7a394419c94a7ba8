"""S_t = diag(a_t) S_{t-1} + k_t v_t^T with a decay for every row of the state: GLA, HGRN-2, RWKV-6."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels import decays, dispatch, inputs, nonfinite, op, products, sequence_parallel
from kernels.gated_linear_attention import reference, xla
from kernels.matrix_state import cpp

IMPLS: dispatch.Impls = {
  "cpp": (products.widened(cpp.gated_linear_attention, 3), cpp.why_not),
  "xla": (products.widened(xla.gated_linear_attention, 3, products.factors), dispatch.always),
  "pallas_tpu": dispatch.imported(
    "kernels.gated_linear_attention.pallas_tpu", "gated_linear_attention", lambda form: products.widened(form, 3)
  ),
  "reference": (products.widened(reference.gated_linear_attention, 3), dispatch.always),
}


def _transition(q, k, v, log_a, u, S, reset):
  T = jnp.exp(log_a.sum(axis=1))[..., None]
  return T if reset is None else op.cleared(reset.any(axis=1), T)


OVER = sequence_parallel.Over(
  ("b t h k", "b t h k", "b t h p", "b t h k", "h k", "b h k p", "b t"),
  "b t h p",
  state=5,
  exchange=sequence_parallel.Linear(_transition),
)


def gated_linear_attention(
  q: Float[Array, "b t h k"],
  k: Float[Array, "b t h k"],
  v: Float[Array, "b t h p"],
  log_a: Float[Array, "b t h k"],
  S: Float[Array, "b h k p"],
  u: Float[Array, "h k"] | None = None,
  *,
  reset: inputs.Reset = None,
  lengths: inputs.Lengths = None,
  impl: str = "auto",
) -> tuple[Float[Array, "b t h p"], Float[Array, "b h k p"]]:
  """S_t = diag(exp(log_a_t)) S_{t-1} + k_t v_t^T;  y_t = S_t^T q_t;  returns all y and the last S.

  Yang et al. 2024, arXiv:2312.06635, sec. 4.1. With a bonus u, y_t = (S_{t-1} + (u k_t) v_t^T)^T q_t instead: what a
  token adds is read with a weight of its own, and no decay stands between a token and the one before it (Peng et al.
  2024, arXiv:2404.05892, RWKV-6).

  Args:
    log_a: at most 0; a decay of exactly 0, minus infinity, is fine.
    S, reset, lengths, impl: as in all ops, see `kernels`.
  """
  dtype = inputs.compute_dtype(q, k, v, log_a, u, S)
  where = op.rows(v.shape[1], reset, lengths)
  # At padding the decay is 1 and the input 0.
  q, k, v, log_a = where.fill(q, k, v, log_a)
  log_a, u, S = op.cast(dtype, log_a, u, S)
  tokens, S, after = nonfinite.contain(where.reset, S, q, k, v, jnp.maximum(log_a, decays.least(dtype)))
  args = *tokens, u, S, where.reset
  rest: dict[str, Any] = dict(out=v, state=S, one_token=IMPLS["reference"][0], after=after, over=OVER)
  return op.run("gated_linear_attention", IMPLS, impl, args, where, **rest)
