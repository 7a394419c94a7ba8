"""`delta_rule` block by block as matrix products and a triangular solve, with states kept for every few blocks.

What the tokens of a block retrieve from the state, r_i = w_i^T S_{i-1}, depends on what earlier ones of them retrieved.
Written out (the WY form of the product of the transitions: Yang et al. 2024, arXiv:2406.06484, sec. 3.2),

  r_i = w_i . (a_1 .. a_{i-1} S_0) + sum_{j<i} (w_i . a_{j+1} .. a_{i-1} u_j) r_j + (w_i . a_{j+1} .. a_{i-1} k_j) v_j

is (1 - L) r = b with a strictly lower triangular L, solved by forward substitution. With u = -k, e = v - r takes the
place of both: (1 + L) e = v - w a S_0 has half the products. Both are linear in S_0, so everything but the products
with it is computed for many blocks at once. The gradient solves the transposed system.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kernels import chunks, decays
from kernels.products import multiply

# Tokens of a block, and blocks between two states that are kept: for one decay a token, which multiplies products that
# do not know it; and for one a channel, where every pair of tokens costs as many numbers as there are channels.
ONE, BY_CHANNEL = (64, 16), (16, 8)
# Rows solved by LAPACK. It is slow for blocks of 64, and products do what is outside of these.
ROWS = 16


class Local(NamedTuple):
  """The matrices of a block, whose tokens retrieve r = new + retrieve S and read y = own + read S + scores r.

  S before the block becomes across S + inflow + write^T r after it.
  """

  across: Float[Array, "*b k"]
  new: Float[Array, "*b c p"]
  retrieve: Float[Array, "*b c k"]
  write: Float[Array, "*b c k"]
  read: Float[Array, "*b c k"]
  scores: Float[Array, "*b c c"]
  own: Float[Array, "*b c p"] | None
  inflow: Float[Array, "*b k p"] | None


def delta_rule(q, k, v, w, u, log_a, S, reset):
  """Computes `reference.delta_rule`. Factors of products, but for those of the solve, have the dtype of the vectors."""
  # a document finds nothing of the one before it
  w = w if reset is None else jnp.where(reset[:, :, None, None], 0, w)
  if log_a is None and reset is not None:
    log_a = jnp.zeros((*v.shape[:3], 1), S.dtype)
  most, together = ONE if log_a is None or log_a.shape[-1] == 1 else BY_CHANNEL
  tokens = (q, k, v, w, u, None if log_a is None else decays.clear(log_a, reset))
  block, finish = (functools.partial(step, factors=v.dtype) for step in (_block, _finish))
  S, y = chunks.fold(_local, block, finish, S, tokens, most=most, together=together)
  return y, S


def _local(tokens) -> Local:
  q, k, v, w, u, log_a = tokens
  factors = decays.factors(log_a)
  writes = jnp.stack([k] if u is None else [k, u], axis=-3)
  scores, retrieved = _weights(q, w, writes, log_a)
  before, leaving = factors.before * w, factors.leave[..., None, :, :] * writes
  own = inflow = None
  if u is None:
    # e = v - r takes the place of r, and is written at k
    new, retrieve = _solve(retrieved[..., 0, :, :], v.astype(retrieved.dtype), -before)
  else:
    # r is written at u, and v at k
    through = lambda weights: multiply("...ij,...jp->...ip", weights, v, v.dtype)
    own, inflow = through(scores[..., 0, :, :]), multiply("...ck,...cp->...kp", leaving[..., 0, :, :], v, v.dtype)
    new, retrieve = _solve(-retrieved[..., 1, :, :], through(retrieved[..., 0, :, :]), before)
  across = jnp.broadcast_to(factors.across, (*retrieve.shape[:-2], factors.across.shape[-1]))
  write, scores = leaving[..., -1, :, :], scores[..., -1, :, :]
  return Local(across, new, retrieve, write, factors.enter * q, scores, own, inflow)


def _weights(q, w, writes, log_a) -> tuple[Float[Array, "*b s c c"], Float[Array, "*b s c c"]]:
  """Returns the weights of q on the writes up to its own token, and of w on the writes before its own token."""
  if log_a is None:
    product = lambda z, k: jnp.tril(multiply("...ik,...sjk->...sij", z, writes, q.dtype), k)
    return product(q, 0), product(w, -1)
  weights = decays.scores(jnp.stack([q, decays.ahead(w)], axis=-3), writes, log_a)
  return weights[..., 0, :, :, :], decays.behind(weights[..., 1, :, :, :])


def _block(S, local, factors):
  retrieved = local.new + multiply("...ck,...kp->...cp", local.retrieve, S, factors)
  after = local.across[..., None] * S + multiply("...ck,...cp->...kp", local.write, retrieved, factors)
  return after if local.inflow is None else after + local.inflow, retrieved


def _finish(local, S, retrieved, factors):
  product = functools.partial(multiply, factors=factors)
  y = product("...ck,...kp->...cp", local.read, S) + product("...ij,...jp->...ip", local.scores, retrieved)
  return y if local.own is None else y + local.own


def _solve(lower, *right: Float[Array, "..."]) -> list[Float[Array, "..."]]:
  """Finds all x with (1 + lower) x = b, for a strictly lower triangular matrix; inverts the blocks on its diagonal."""
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
