"""`delta_rule` block by block as matrix products and a triangular solve, with states kept for every few blocks.

What the tokens of a block find in the state, r_i = w_i^T S_{i-1}, depends on what earlier ones of them found. Written
out (the WY form of the product of the transitions: Yang et al. 2024, arXiv:2406.06484, sec. 3.2),

  r_i = w_i . (a_1 .. a_{i-1} S_0) + sum_{j<i} (w_i . a_{j+1} .. a_{i-1} u_j) r_j + (w_i . a_{j+1} .. a_{i-1} k_j) v_j

is (1 - L) r = b with a strictly lower triangular L, solved by forward substitution. With u = -k, e = v - r takes the
place of both: (1 + L) e = v - w a S_0 has half the products. The gradient solves the transposed system.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from kernels import chunks, decays
from kernels.delta_rule import reference

# Tokens of a block, and blocks between two states that are kept: for one decay a token, which multiplies products that
# do not know it; and for one a channel, where every pair of tokens costs as many numbers as there are channels.
ONE, BY_CHANNEL = (64, 1), (16, 4)


def delta_rule(
  q: Float[Array, "b t h k"],
  k: Float[Array, "b t h k"],
  v: Float[Array, "b t h p"],
  w: Float[Array, "b t h k"],
  u: Float[Array, "b t h k"] | None,
  log_a: Float[Array, "b t h _"],
  S: Float[Array, "b h k p"],
  keep: Bool[Array, "b t"] | None,
) -> tuple[Float[Array, "b t h p"], Float[Array, "b h k p"]]:
  """See `reference.delta_rule`."""
  if v.shape[1] == 1:
    return reference.delta_rule(q, k, v, w, u, log_a, S, keep)
  log_a = decays.clear(log_a, keep)
  # a document finds nothing of the one before it
  w = w if keep is None else jnp.where(keep[:, :, None, None], w, 0)
  most, together = ONE if log_a.shape[-1] == 1 else BY_CHANNEL
  S, y = chunks.fold(_block, S, (q, k, v, w, u, log_a), most=most, together=together)
  return y, S


def _block(S, tokens):
  q, k, v, w, u, log_a = tokens
  factors = decays.factors(log_a)
  reads, writes = jnp.stack([q, decays.ahead(w)], axis=2), jnp.stack([k] if u is None else [k, u], axis=2)
  weights = decays.scores(reads, writes, log_a)
  found = decays.einsum("bhck,bhkp->bhcp", factors.before * w, S)
  # by what was written at k and at u: what tokens of the block find of it
  at_k, *at_u = (decays.behind(weights[:, :, 1, i]) for i in range(writes.shape[2]))
  if u is None:
    written = _solve(at_k, v - found)[:, :, None]
  else:
    found = _solve(-at_u[0], found + decays.einsum("bhij,bhjp->bhip", at_k, v))
    written = jnp.stack([v, found], axis=2)
  y = decays.einsum("bhck,bhkp->bhcp", factors.enter * q, S)
  y += decays.einsum("bhsij,bhsjp->bhip", weights[:, :, 0], written)
  S = factors.across[..., None] * S
  return S + decays.einsum("bhsck,bhscp->bhkp", factors.leave[:, :, None] * writes, written), y


def _solve(lower: Float[Array, "b h c c"], b: Float[Array, "b h c p"]) -> Float[Array, "b h c p"]:
  """x with (1 + lower) x = b."""
  return lax.linalg.triangular_solve(lower, b, left_side=True, lower=True, unit_diagonal=True)
