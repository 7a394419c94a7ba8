"""`gated_linear_attention` block by block as matrix products, with states kept for every few blocks.

Yang et al. 2024, arXiv:2312.06635, sec. 4.3. Their secondary chunks are our blocks, which are so short that decays
between two tokens can be written out for each channel; the gradient computes them again.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kernels import chunks, decays
from kernels.gated_linear_attention import reference

BLOCK = 16  # tokens; each costs as many numbers a channel
TOGETHER = 4  # blocks between two states that are kept


def gated_linear_attention(
  q: Float[Array, "b t h k"],
  k: Float[Array, "b t h k"],
  v: Float[Array, "b t h p"],
  log_a: Float[Array, "b t h k"],
  u: Float[Array, "h k"] | None,
  S: Float[Array, "b h k p"],
  keep: Bool[Array, "b t"] | None,
) -> tuple[Float[Array, "b t h p"], Float[Array, "b h k p"]]:
  """See `reference.gated_linear_attention`."""
  if v.shape[1] == 1:
    return reference.gated_linear_attention(q, k, v, log_a, u, S, keep)
  log_a = decays.clear(log_a, keep)

  def block(S, tokens):
    q, k, v, log_a, old = tokens
    factors = decays.factors(log_a)
    if u is None:
      weights = decays.scores(q[:, :, None], k[:, :, None], log_a)[:, :, 0, 0]
      y = decays.einsum("bhck,bhkp->bhcp", factors.enter * q, S)
    else:
      weights = decays.behind(decays.scores(decays.ahead(old)[:, :, None], k[:, :, None], log_a)[:, :, 0, 0])
      weights += jnp.einsum("bhck,bhck->bhc", q, u[:, None] * k)[..., None] * jnp.eye(q.shape[2], dtype=q.dtype)
      y = decays.einsum("bhck,bhkp->bhcp", factors.before * old, S)
    y += decays.einsum("bhij,bhjp->bhip", weights, v)
    S = factors.across[..., None] * S + decays.einsum("bhck,bhcp->bhkp", factors.leave * k, v)
    return S, y

  # with a bonus a token reads the state before it, of which a new document has none
  old = None if u is None else q if keep is None else jnp.where(keep[:, :, None, None], q, 0)
  S, y = chunks.fold(block, S, (q, k, v, log_a, old), most=BLOCK, together=TOGETHER)
  return y, S
