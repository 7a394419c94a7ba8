"""The definition of `lti`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Int

from kernels.lti.system import System


def lti(
  u: Float[Array, "b t e"],
  system: System,
  x: Inexact[Array, "b e n"],
  keep: Bool[Array, "b t"] | None,
  lengths: Int[Array, "b"] | None,
) -> tuple[Float[Array, "b t e"], Inexact[Array, "b e n"]]:
  """y_t = Re(C A x_{t-1}) + C B u_t;  x_t = A x_{t-1} + B u_t, cleared where `keep` is False, still past `lengths`."""
  b, t, _ = u.shape
  keep = jnp.ones((b, t), bool) if keep is None else keep
  here = jnp.ones((b, t), bool) if lengths is None else jnp.arange(t) < lengths[:, None]
  CA, CB, B = system.O[:, 0], system.K[:, 0], system.I[..., -1]

  def step(x, inputs):
    u, keep, here = inputs
    before = jnp.where(keep[:, None, None], x, 0)
    y = jnp.einsum("en,ben->be", CA, before).real + CB * u
    after = before * system.A if system.A.ndim == 2 else jnp.einsum("eij,bej->bei", system.A, before)
    return jnp.where(here[:, None, None], after + B * u[..., None], x), y

  x, y = jax.lax.scan(step, x, tuple(z.swapaxes(0, 1) for z in (u, keep, here)))
  return y.swapaxes(0, 1), x
