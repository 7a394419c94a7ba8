"""m_t = max(log_a_t + m_{t-1}, x_t): the logarithm of the largest weight so far, over which sums are kept."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels import dispatch, inputs, nonfinite, op, sequence_parallel
from kernels.max_scan import associative, reference

IMPLS: dispatch.Impls = {
  # without a gradient, the definition is the fast form on a CPU, too
  "xla": (reference.max_scan, dispatch.always),
  "associative": (associative.max_scan, dispatch.always),
  "reference": (reference.max_scan, dispatch.always),
}
EMPTY = -1e30  # the logarithm of no weight at all, of which differences are numbers
OVER = sequence_parallel.Over(
  ("b t e", "b t e", "b e"),
  "b t e",
  state=2,
  exchange=sequence_parallel.Linear(
    lambda log_a, x, m: log_a.sum(axis=1), lambda T, m, last: jnp.maximum(T + m, last), EMPTY
  ),
)


def _over(form, *args):
  def with_last(*args):
    m = form(*args)
    return m, m[:, -1]

  return OVER(with_last, *args)[0]


def max_scan(
  log_a: Float[Array, "b t n"],
  x: Float[Array, "b t n"],
  m: Float[Array, "b n"],
  *,
  reset: inputs.Reset = None,
  lengths: inputs.Lengths = None,
  impl: str = "auto",
) -> Float[Array, "b t n"]:
  """m_t = max(log_a_t + m_{t-1}, x_t) for all tokens.

  Its gradient is 0: what is divided by e^m and multiplied by it again knows nothing of m.

  Args:
    log_a: log decays, at most 0.
    x: log weights of the tokens.
    m: that before the first token; EMPTY if there is nothing.
    reset, lengths, impl: as in all ops, see `kernels`; but m_t stands still in the padding, where outputs are not 0.
  """
  where, dtype = op.rows(x.shape[1], reset, lengths), inputs.compute_dtype(log_a, x, m)
  log_a, x, m = map(jax.lax.stop_gradient, op.cast(dtype, log_a, x, m))
  (log_a,), (x,), after = where.fill(log_a), where.fill(x, value=EMPTY), None
  # without documents what is not finite lasts to the end of its row, and comes no earlier, by itself
  if where.reset is not None:
    log_a = jnp.where(where.reset[..., None], EMPTY, log_a)
    m = inputs.where(where.reset[:, :1].any(axis=1), EMPTY, m)
    # a weight of 0 has the logarithm minus infinity, which is a number here
    log_a, x, m = (jnp.maximum(z, EMPTY) for z in (log_a, x, m))
    (log_a, x), m, after = nonfinite.contain(where.reset, m, log_a, x)
  # m_t stands still at padding, where others are 0
  rest: dict[str, Any] = dict(out=x, one_token=reference.max_scan, over=_over)
  y = op.outputs("max_scan", IMPLS, impl, (log_a, x, m), op.Rows(), **rest)
  return nonfinite.mark(after, y, None)[0]
