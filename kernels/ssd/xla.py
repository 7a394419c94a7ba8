"""`ssd` chunk by chunk as matrix products: attention with decay inside a chunk, states between the chunks.

Dao & Gu 2024, arXiv:2405.21060, sec. 6. Only the states entering the chunks are kept for the gradient, which computes
the c x c matrices of a chunk again.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kernels import chunks
from kernels.decays import einsum, running_sums
from kernels.kept_states import named
from kernels.products import multiply

CHUNK = 64  # the size of common heads and states: products within a chunk cost about what those with states do


class Tokens(NamedTuple):
  """Inputs by chunk, time before batch, heads split into groups."""

  q: Float[Array, "m c b g k"]
  k: Float[Array, "m c b g k"]
  v: Float[Array, "m c b g r p"]


class Decays(NamedTuple):
  """Products of the decays of a chunk; 0 from one document to another."""

  inside: Float[Array, "m b g r c c"]  # after token j, up to and with token i, for j <= i
  enter: Float[Array, "m b g r c"]  # from the state before the chunk to each token
  leave: Float[Array, "m b g r c"]  # from each token to the state after the chunk
  across: Float[Array, "m b g r"]  # from state to state


@jax.custom_vjp
def ssd(q, k, v, log_a, S, reset):
  """Computes `reference.ssd`. Factors of products have the dtype of q, k and v."""
  return _forward(q, k, v, log_a, S, reset)[0]


def _forward(q, k, v, log_a, S, reset):
  tokens, decays = _chunks(q, k, v), _decays(log_a, reset, k.shape[2])
  product = functools.partial(multiply, factors=q.dtype)
  inflow = product("mcbgk,mcbgrp->mbgrkp", tokens.k, _by_token(decays.leave) * tokens.v)

  def chunk(S, inputs):
    across, inflow = inputs
    return across[..., None, None] * S + inflow, S

  last, entries = named(lax.scan(chunk, _grouped(S, 1, k.shape[2]), (decays.across, inflow)))
  weights = decays.inside * _scores(tokens)[:, :, :, None]
  y = product("mbgrij,mjbgrp->mibgrp", weights, tokens.v)
  y += _by_token(decays.enter) * product("mcbgk,mbgrkp->mcbgrp", tokens.q, entries)
  return (named(_rows(y, v)), last.reshape(S.shape)), (q, k, v, log_a, reset, entries)


def _backward(saved, cotangents):
  q, k, v, log_a, reset, entries = saved
  tokens, decays = _chunks(q, k, v), _decays(log_a, reset, k.shape[2])
  product = functools.partial(multiply, factors=q.dtype)
  y_bar = _grouped(chunks.split(cotangents[0], CHUNK), 3, k.shape[2])
  last_bar = cotangents[1].reshape(entries.shape[1:])
  read_bar, stored = _by_token(decays.enter) * y_bar, _by_token(decays.leave) * tokens.v

  def chunk(after_bar, inputs):
    across, entry_bar = inputs
    return across[..., None, None] * after_bar + entry_bar, after_bar

  entry_bars = product("mcbgk,mcbgrp->mbgrkp", tokens.q, read_bar)
  S_bar, after_bars = lax.scan(chunk, last_bar, (decays.across, entry_bars), reverse=True)

  scores, weights_bar = _scores(tokens)[:, :, :, None], product("mibgrp,mjbgrp->mbgrij", y_bar, tokens.v)
  scores_bar = (decays.inside * weights_bar).sum(3)
  read, stored_bar = (product("mcbgk,mbgrkp->mcbgrp", z, S) for z, S in ((tokens.q, entries), (tokens.k, after_bars)))
  q_bar = product("mbgij,mjbgk->mibgk", scores_bar, tokens.k) + product("mcbgrp,mbgrkp->mcbgk", read_bar, entries)
  k_bar = product("mbgij,mibgk->mjbgk", scores_bar, tokens.q) + product("mcbgrp,mbgrkp->mcbgk", stored, after_bars)
  v_bar = product("mbgrij,mibgrp->mjbgrp", decays.inside * scores, y_bar) + _by_token(decays.leave) * stored_bar
  log_a_bar = _log_decay_bar(
    Decays(
      inside=decays.inside * scores * weights_bar,
      enter=_by_chunk((read * read_bar).sum(-1)),
      leave=_by_chunk((stored * stored_bar).sum(-1)),
      across=decays.across * (entries * after_bars).sum((-2, -1)),
    )
  )
  bars = zip((q_bar, k_bar, v_bar, jnp.moveaxis(log_a_bar, -1, 1)), (q, k, v, log_a))
  return *(_rows(bar, z).astype(z.dtype) for bar, z in bars), S_bar.reshape(cotangents[1].shape), None


ssd.defvjp(_forward, _backward)


def _scores(tokens):
  return multiply("mibgk,mjbgk->mbgij", tokens.q, tokens.k, tokens.q.dtype)


def _decays(log_a, reset, groups) -> Decays:
  """Exponentials of sums over segments of a chunk; the filling of the last chunk has log_a = 0."""
  log_a = _by_chunk(_grouped(chunks.split(log_a, CHUNK), 3, groups))
  high, low = running_sums(log_a, axis=log_a.ndim - 1)
  to_end = (high[..., -1:] - high) + (low[..., -1:] - low)
  inside = (high[..., None] - high[..., None, :]) + (low[..., None] - low[..., None, :])
  past = jnp.tri(log_a.shape[-1], dtype=bool)
  if reset is None:
    return Decays(_exp(inside, past), jnp.exp(high + low), jnp.exp(to_end), jnp.exp((high + low)[..., -1]))
  document = jnp.cumsum(chunks.split(reset, CHUNK), axis=1).swapaxes(1, 2)[:, :, None, None]  # "m b 1 1 c"
  last = document[..., -1:]
  return Decays(
    inside=_exp(inside, past & (document[..., None] == document[..., None, :])),
    enter=_exp(high + low, document == 0),
    leave=_exp(to_end, document == last),
    across=_exp((high + low)[..., -1], last[..., 0] == 0),
  )


def _exp(x, where):
  return jnp.exp(jnp.where(where, x, -jnp.inf))


def _log_decay_bar(bar: Decays) -> Float[Array, "m b g r c"]:
  """Sums the cotangents of a token's log decay, which is part of every segment that contains the token.

  Added up without differences of sums, which would leave rounding errors of the largest cotangents in the smallest.
  """
  c = bar.enter.shape[-1]
  before = jnp.tri(c, k=-1, dtype=bar.enter.dtype).T  # [j, n]: segments from j contain n
  ends = einsum("...ij,jn->...in", bar.inside, before) + bar.enter[..., None]
  through = jnp.where(jnp.tri(c, dtype=bool), ends, 0).sum(-2)
  return through + einsum("...j,jn->...n", bar.leave, before) + bar.across[..., None]


def _chunks(q, k, v) -> Tokens:
  split = functools.partial(chunks.split, most=CHUNK)
  return Tokens(split(q), split(k), _grouped(split(v), 3, k.shape[2]))


def _grouped(z, axis, groups):
  """Splits heads by group: "... h ..." -> "... g r ..."."""
  return z.reshape(*z.shape[:axis], groups, -1, *z.shape[axis + 1 :])


def _rows(z, like):
  """Puts the tokens after one another again, in the shape of `like`."""
  return chunks.join(z, like.shape[1]).reshape(like.shape)


def _by_chunk(z):
  """Moves tokens last: "m c b g r" -> "m b g r c"."""
  return jnp.moveaxis(z, 1, -1)


def _by_token(z):
  """Makes a factor of values: "m b g r c" -> "m c b g r 1"."""
  return jnp.moveaxis(z, -1, 1)[..., None]
