"""m_t = max(log_a_t + m_{t-1}, x_t): the logarithm of the largest weight so far, over which sums are kept."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels import dispatch, inputs
from kernels.max_scan import associative, reference

IMPLS: dispatch.Impls = {
  # without a gradient, the definition is the fast form on a CPU, too
  "xla": (reference.max_scan, dispatch.always),
  "associative": (associative.max_scan, dispatch.always),
  "reference": (reference.max_scan, dispatch.always),
}
EMPTY = -1e30  # the logarithm of no weight at all, of which differences are numbers


def max_scan(
  log_a: Float[Array, "b t n"],
  x: Float[Array, "b t n"],
  m: Float[Array, "b n"],
  *,
  reset: Bool[Array, "b t"] | None = None,
  lengths: Int[Array, "b"] | None = None,
  impl: str = "auto",
) -> Float[Array, "b t n"]:
  """m_t = max(log_a_t + m_{t-1}, x_t) for all tokens.

  Computed in at least float32. Its gradient is 0: what is divided by e^m and multiplied by it again knows nothing of m.

  Args:
    log_a: log decays, at most 0.
    x: log weights of the tokens.
    m: that before the first token; EMPTY if there is nothing.
    reset: True where a document starts: nothing is before that token.
    lengths: tokens that are there per row; past them m_t stands still.
    impl: "auto" or a name in IMPLS.

  Raises:
    ValueError: `impl` does not exist or cannot run these arguments.
  """
  dtype = inputs.compute_dtype(log_a, x, m)
  log_a, x, m = (jax.lax.stop_gradient(z.astype(dtype)) for z in (log_a, x, m))
  if reset is not None:
    log_a = jnp.where(reset[..., None], EMPTY, log_a)
  if lengths is not None:
    here = inputs.valid(lengths, x.shape[1])[..., None]
    log_a, x = jnp.where(here, log_a, 0), jnp.where(here, x, EMPTY)
  if x.shape[1] == 0:
    return x
  return dispatch.pick("max_scan", IMPLS, impl, log_a, x, m)(log_a, x, m)
