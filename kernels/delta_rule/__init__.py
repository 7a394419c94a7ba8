"""S_t = diag(a_t) S_{t-1} + u_t (S_{t-1}^T w_t)^T + k_t v_t^T: DeltaNet, Gated DeltaNet, KDA, RWKV-7."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels import decays, dispatch, inputs, nonfinite, op, products, sequence_parallel
from kernels.delta_rule import reference, xla
from kernels.matrix_state import cpp
from mistake import Mistake

IMPLS: dispatch.Impls = {
  "cpp": (products.widened(cpp.delta_rule, 5), cpp.why_not),
  "xla": (products.widened(xla.delta_rule, 5, products.factors), dispatch.always),
  "pallas_tpu": dispatch.imported(
    "kernels.delta_rule.pallas_tpu", "delta_rule", lambda form: products.widened(form, 5)
  ),
  "reference": (products.widened(reference.delta_rule, 5), dispatch.always),
}


def _transition(q, k, v, w, u, log_a, S, reset):
  """Returns what becomes of the unit vectors, one in each column of a state, if nothing is written."""
  unit = jnp.broadcast_to(jnp.eye(k.shape[-1], dtype=S.dtype), (*S.shape[:3], k.shape[-1]))
  return delta_rule(q, k, jnp.zeros_like(k), w, unit, u, log_a, reset=reset)[1]


OVER = sequence_parallel.Over(
  ("b t h k", "b t h k", "b t h p", "b t h k", "b t h k", "b t h", "b h k p", "b t"),
  "b t h p",
  state=6,
  exchange=sequence_parallel.Linear(_transition, sequence_parallel.affine_by_rows),
)


def delta_rule(
  q: Float[Array, "b t h k"],
  k: Float[Array, "b t h k"],
  v: Float[Array, "b t h p"],
  w: Float[Array, "b t h k"],
  S: Float[Array, "b h k p"],
  u: Float[Array, "b t h k"] | None = None,
  log_a: Float[Array, "b t h _"] | None = None,
  *,
  reset: inputs.Reset = None,
  lengths: inputs.Lengths = None,
  impl: str = "auto",
) -> tuple[Float[Array, "b t h p"], Float[Array, "b h k p"]]:
  """S_t = diag(exp(log_a_t)) S_{t-1} + u_t (S_{t-1}^T w_t)^T + k_t v_t^T;  y_t = S_t^T q_t;  all y and the last S.

  What w finds in the state is written back at u, beside v at k. Without u it is taken away at k, so that v replaces it:
  S_t = diag(exp(log_a_t)) S_{t-1} + k_t (v_t - S_{t-1}^T w_t)^T. With keys x, step sizes beta and decays a

    DeltaNet         k = beta x, w = x                            Yang et al. 2024, arXiv:2406.06484
    Gated DeltaNet   k = beta x, w = a x, a one number            Yang et al. 2025, arXiv:2412.06464
    KDA              k = beta x, w = a x, a by channel            Kimi Team 2025, arXiv:2510.26692
    RWKV-7           k, w = kappa, u = -alpha kappa, a by channel Peng et al. 2025, arXiv:2503.14456

  Args:
    w: finds what is there before the decay.
    log_a: by row of the state or, with a last axis of 1, one for all; at most 0, and minus infinity is fine. None: no
      decay.
    S, reset, lengths, impl: as in all ops, see `kernels`.

  Raises:
    ValueError: log_a has neither one nor k entries.
  """
  if log_a is not None and log_a.shape[-1] not in (1, k.shape[-1]):
    raise Mistake(f"delta_rule: {log_a.shape[-1]} decays for {k.shape[-1]} rows; give one, or one for each")
  dtype = inputs.compute_dtype(q, k, v, w, u, log_a, S)
  where = op.rows(v.shape[1], reset, lengths)
  # At padding the decay is 1 and the input 0.
  q, k, v, w, u, log_a = where.fill(q, k, v, w, u, log_a)
  log_a, S = op.cast(dtype, log_a, S)
  log_a = None if log_a is None else jnp.maximum(log_a, decays.least(dtype))
  tokens, S, after = nonfinite.contain(where.reset, S, q, k, v, w, u, log_a)
  args = *tokens, S, where.reset
  return op.run("delta_rule", IMPLS, impl, args, where, out=v, state=S, one_token=_one_token, after=after, over=OVER)


def _one_token(*args):
  """Computes one token by the kernel in C++ if that can run, which goes twice over the state, or by the definition."""
  return dispatch.pick("delta_rule", {name: IMPLS[name] for name in ("cpp", "reference")}, "auto", *args)(*args)
