"""h_t = a_t * h_{t-1} + sqrt(1 - a_t^2) (i_t u_t), a_t a power of a gate: the recurrence of Hawk and Griffin."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kernels import dispatch, inputs, op, sequence_parallel
from kernels.rg_lru import reference, xla
from kernels.rg_lru.gates import C

IMPLS: dispatch.Impls = {
  "xla": (xla.rg_lru, dispatch.always),
  "pallas_gpu": dispatch.imported("kernels.rg_lru.pallas_gpu", "rg_lru"),
  "pallas_tpu": dispatch.imported("kernels.rg_lru.pallas_tpu", "rg_lru"),
  "reference": (reference.rg_lru, dispatch.always),
}


def _transition(u, r, i, a_param, h, reset, packed):
  T = jnp.exp(-C * jax.nn.softplus(a_param) * jax.nn.sigmoid(r.astype(h.dtype)).sum(axis=1))
  return T if reset is None else op.cleared(reset.any(axis=1), T)


OVER = sequence_parallel.Over(
  ("b t e", "b t e", "b t e", "e", "b e", "b t", None),
  "b t e",
  state=4,
  exchange=sequence_parallel.Linear(_transition),
)


def rg_lru(
  u: Float[Array, "b t e"],
  r: Float[Array, "b t e"],
  i: Float[Array, "b t e"],
  a_param: Float[Array, "e"],
  h: Float[Array, "b e"],
  *,
  row_reset: Bool[Array, "b"] | None = None,
  reset: inputs.Reset = None,
  lengths: inputs.Lengths = None,
  impl: str = "auto",
) -> tuple[Float[Array, "b t e"], Float[Array, "b e"]]:
  """y_t = h_t = a_t * h_{t-1} + sqrt(1 - a_t^2) sigmoid(i_t) u_t,  a_t = exp(-8 sigmoid(r_t) softplus(a_param))

  De et al. 2024, arXiv:2402.19427, eqs. (1)-(4); at the first token of a document, which nothing precedes, the factor
  of the input is 1, as in the authors' code. The slope of the square root is at most 1000.

  Args:
    r, i: the gates before their sigmoids.
    row_reset: True for rows whose first token starts a document; their h is taken as 0.
    h, reset, lengths, impl: as in all ops, see `kernels`.
  """
  where, dtype = op.rows(u.shape[1], reset, lengths), inputs.compute_dtype(u, r, i, a_param, h)
  a_param, h = op.cast(dtype, a_param, h)
  reset, packed = where.reset, where.reset is not None
  if row_reset is not None:
    h = jnp.where(row_reset[:, None], 0, h)
    (starts,) = where.fill((jnp.arange(u.shape[1]) == 0) & row_reset[:, None], value=False)
    reset = reset | starts if packed else starts
  # At padding the decay is 1 and the input 0.
  u, i = where.fill(u, i)
  (r,) = where.fill(r, value=-jnp.inf)
  args = u, r, i, a_param, h, reset, packed
  return op.run("rg_lru", IMPLS, impl, args, where, out=u, state=h, one_token=reference.rg_lru, over=OVER)
