"""`gated_linear_attention` block by block as matrix products, with states kept for every few blocks.

Yang et al. 2024, arXiv:2312.06635, sec. 4.3. Their secondary chunks are our blocks, which are so short that decays
between two tokens can be written out for each channel; the gradient computes them again.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels import chunks, decays
from kernels.products import multiply

BLOCK = 16  # tokens; each costs as many numbers a channel
TOGETHER = 8  # blocks between two states that are kept


class Local(NamedTuple):
  """The terms of a block that need no state: y = own + read S, and S becomes across S + inflow."""

  own: Float[Array, "*b c p"]
  read: Float[Array, "*b c k"]
  across: Float[Array, "*b k"]
  inflow: Float[Array, "*b k p"]


def gated_linear_attention(q, k, v, log_a, u, S, reset):
  """Computes `reference.gated_linear_attention`. Factors of products have the dtype of q, k and v."""

  def local(tokens):
    q, k, v, log_a, old = tokens
    factors = decays.factors(log_a)
    scores = lambda reads: decays.scores(reads[..., None, :, :], k[..., None, :, :], log_a)[..., 0, 0, :, :]
    if u is None:
      weights, read = scores(q), factors.enter * q
    else:
      bonus = (q * u[:, None] * k).sum(-1)[..., None] * jnp.eye(q.shape[-2], dtype=log_a.dtype)
      weights, read = decays.behind(scores(decays.ahead(old))) + bonus, factors.before * old
    own = multiply("...ij,...jp->...ip", weights, v, v.dtype)
    return Local(own, read, factors.across, multiply("...ck,...cp->...kp", factors.leave * k, v, v.dtype))

  # with a bonus a token reads the state before it, of which a new document has none
  old = None if u is None else q if reset is None else jnp.where(reset[:, :, None, None], 0, q)
  tokens = (q, k, v, decays.clear(log_a, reset), old)
  finish = functools.partial(_finish, factors=v.dtype)
  S, y = chunks.fold(local, _block, finish, S, tokens, most=BLOCK, together=TOGETHER)
  return y, S


def _block(S, local):
  return local.across[..., None] * S + local.inflow, None


def _finish(local, S, _, factors):
  return local.own + multiply("...ck,...kp->...cp", local.read, S, factors)
