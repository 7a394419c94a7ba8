"""`delta_rule` block by block as matrix products and a triangular solve, with states kept for every few blocks.

What the tokens of a block find in the state, r_i = w_i^T S_{i-1}, depends on what earlier ones of them found. Written
out (the WY form of the product of the transitions: Yang et al. 2024, arXiv:2406.06484, sec. 3.2),

  r_i = w_i . (a_1 .. a_{i-1} S_0) + sum_{j<i} (w_i . a_{j+1} .. a_{i-1} u_j) r_j + (w_i . a_{j+1} .. a_{i-1} k_j) v_j

is (1 - L) r = b with a strictly lower triangular L, solved by forward substitution. With u = -k, e = v - r takes the
place of both: (1 + L) e = v - w a S_0 has half the products. Both are linear in S_0, so everything but the products
with it is computed for many blocks at once. The gradient solves the transposed system.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from kernels import chunks, decays
from kernels.delta_rule import reference

# Tokens of a block, and blocks between two states that are kept: for one decay a token, which multiplies products that
# do not know it; and for one a channel, where every pair of tokens costs as many numbers as there are channels.
ONE, BY_CHANNEL = (64, 16), (16, 8)
# Rows solved by LAPACK. It is slow for blocks of 64, and products do what is outside of these.
ROWS = 16


class Local(NamedTuple):
  """What a block does to the state before it: y = own + read S, and S becomes (across + put^T find) S + inflow."""

  own: Float[Array, "*b c p"]
  read: Float[Array, "*b c k"]
  across: Float[Array, "*b k"]
  find: Float[Array, "*b c k"]
  put: Float[Array, "*b c k"]
  inflow: Float[Array, "*b k p"]


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
  # a document finds nothing of the one before it
  w = w if keep is None else jnp.where(keep[:, :, None, None], w, 0)
  most, together = ONE if log_a.shape[-1] == 1 else BY_CHANNEL
  tokens = (q, k, v, w, u, decays.clear(log_a, keep))
  S, y = chunks.fold(_local, _block, S, tokens, most=most, together=together)
  return y, S


def _local(tokens) -> Local:
  q, k, v, w, u, log_a = tokens
  factors = decays.factors(log_a)
  reads, writes = jnp.stack([q, decays.ahead(w)], axis=-3), jnp.stack([k] if u is None else [k, u], axis=-3)
  weights = decays.scores(reads, writes, log_a)
  seen, found = weights[..., 0, :, :, :], decays.behind(weights[..., 1, :, :, :])
  before, leaving = factors.before * w, factors.leave[..., None, :, :] * writes
  if u is None:
    # e = new + find S, written at k
    new, find = _solve(found[..., 0, :, :], v, -before)
    written = new[..., None, :, :]
  else:
    # r = new + find S, written at u, and v at k
    entered = decays.einsum("...ij,...jp->...ip", found[..., 0, :, :], v)
    new, find = _solve(-found[..., 1, :, :], entered, before)
    written = jnp.stack([v, new], axis=-3)
  return Local(
    own=decays.einsum("...sij,...sjp->...ip", seen, written),
    read=factors.enter * q + decays.einsum("...ij,...jk->...ik", seen[..., -1, :, :], find),
    across=factors.across,
    find=find,
    put=leaving[..., -1, :, :],
    inflow=decays.einsum("...sck,...scp->...kp", leaving, written),
  )


def _block(S, local):
  times = lambda a, b: decays.einsum("...ck,...kp->...cp", a, b)
  y = local.own + times(local.read, S)
  S_after = local.across[..., None] * S + local.inflow
  return S_after + decays.einsum("...ck,...cp->...kp", local.put, times(local.find, S)), y


def _solve(lower, *right: Float[Array, "..."]) -> list[Float[Array, "..."]]:
  """Every x with (1 + lower) x = b, for a strictly lower triangular matrix; inverts the blocks on its diagonal."""
  b = jnp.concatenate(right, axis=-1)
  c, pad = b.shape[-2], ((0, 0),) * (b.ndim - 2)
  more = (0, -c % ROWS)
  b, lower = jnp.pad(b, (*pad, more, (0, 0))), jnp.pad(lower, (*pad, more, more))
  rows = [slice(i, i + ROWS) for i in range(0, c, ROWS)]
  diagonal = jnp.stack([lower[..., at, at] for at in rows], axis=-3)
  one = jnp.broadcast_to(jnp.eye(ROWS, dtype=b.dtype), diagonal.shape)
  inverse = lax.linalg.triangular_solve(diagonal, one, left_side=True, lower=True, unit_diagonal=True)
  x = b[..., :0, :]
  for i, at in enumerate(rows):
    left = b[..., at, :] - decays.einsum("...ij,...jp->...ip", lower[..., at, : at.start], x)
    x = jnp.concatenate([x, decays.einsum("...ij,...jp->...ip", inverse[..., i, :, :], left)], axis=-2)
  return jnp.split(x[..., :c, :], [right[0].shape[-1]], axis=-1)
