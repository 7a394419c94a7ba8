"""The definition of `gated_linear_attention`: one token after the other."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def gated_linear_attention(
  q: Float[Array, "b t h k"],
  k: Float[Array, "b t h k"],
  v: Float[Array, "b t h p"],
  log_a: Float[Array, "b t h k"],
  u: Float[Array, "h k"] | None,
  S: Float[Array, "b h k p"],
  keep: Bool[Array, "b t"] | None,
) -> tuple[Float[Array, "b t h p"], Float[Array, "b h k p"]]:
  """S_t = diag(a_t) S_{t-1} + k_t v_t^T, with S_{t-1} = 0 where `keep` is False; y_t = S_t^T q_t, or with u."""
  keep = jnp.ones(v.shape[:2], bool) if keep is None else keep

  def step(S, inputs):
    q, k, v, log_a, keep = inputs
    S = jnp.where(keep[:, None, None, None], S, 0)
    new = k[..., None] * v[..., None, :]
    after = jnp.exp(log_a)[..., None] * S + new
    read = after if u is None else S + u[..., None] * new
    return after, (read * q[..., None]).sum(-2)

  S, y = jax.lax.scan(step, S, tuple(z.swapaxes(0, 1) for z in (q, k, v, log_a, keep)))
  return y.swapaxes(0, 1), S
