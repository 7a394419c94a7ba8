"""Computes the interactions of the tokens of a short block when every channel of the state has a decay of its own.

A factor exp(g_i - g_j) between two tokens, g being running sums of log decays, must not be split into exp(g_i) and
exp(-g_j), of which the second overflows. Here no exponent is above 0, whatever the decays.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kernels.inputs import Reset
from kernels.products import multiply

# float32 means float32 on accelerators too
einsum = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)


class Factors(NamedTuple):
  """Products of decays of a block, for what the state before it and the state after it have to do with its tokens."""

  before: Float[Array, "*b c k"]  # from the state before the block to what the token finds
  enter: Float[Array, "*b c k"]  # and through the token
  leave: Float[Array, "*b c k"]  # from after the token to the end
  across: Float[Array, "*b k"]  # through all


def least(dtype: jnp.dtype) -> Float[Array, ""]:
  """Returns a log decay whose exponential is 0, far enough from minus infinity for sums of it to have differences."""
  return 2 * jnp.log(jnp.finfo(dtype).tiny)


def clear(log_a: Float[Array, "b t h k"], reset: Reset) -> Float[Array, "b t h k"]:
  """Returns log decays that forget everything where `reset` is True."""
  return log_a if reset is None else jnp.where(reset[:, :, None, None], least(log_a.dtype), log_a)


def factors(log_a: Float[Array, "*b c k"] | None) -> Factors:
  """Adds up the tokens of each product by itself, so that gradients are sums without differences; 1 without decays."""
  if log_a is None:
    return Factors(*(jnp.ones((1, 1)),) * 3, jnp.ones(1))
  tokens = jnp.arange(log_a.shape[-2])
  sums = lambda which: jnp.exp(einsum("nj,...jk->...nk", which.astype(log_a.dtype), log_a))
  row, column = tokens[:, None], tokens
  return Factors(sums(column < row), sums(column <= row), sums(column > row), jnp.exp(log_a.sum(-2)))


def ahead(z: Float[Array, "*b c k"]) -> Float[Array, "*b c k"]:
  """Moves each token's entry to the token before it, so that `scores` reads the state before the token."""
  return jnp.concatenate([z[..., 1:, :], jnp.zeros_like(z[..., :1, :])], axis=-2)


def behind(z: Float[Array, "*b c k"]) -> Float[Array, "*b c k"]:
  """Moves each token's entry back from the token before it, the inverse of `ahead`; the first token gets 0."""
  return jnp.concatenate([jnp.zeros_like(z[..., :1, :]), z[..., :-1, :]], axis=-2)


@jax.custom_vjp
def scores(
  reads: Float[Array, "*b r c k"], writes: Float[Array, "*b s c k"], log_a: Float[Array, "*b c _"]
) -> Float[Array, "*b r s c c"]:
  """reads_i . (a_{j+1} ... a_i writes_j) for every two tokens j <= i of a block, 0 for others.

  Factors of products have the dtype of `reads`.

  Args:
    log_a: by channel, or one number for all.
  """
  return _scores_fwd(reads, writes, log_a)[0]


def _scores_fwd(reads, writes, log_a):
  decay = _decay(log_a)
  return jnp.stack([_read(reads, z, decay) for z in _kinds(writes)], axis=-3), (reads, writes, log_a)


def _scores_bwd(saved, bar):
  reads, writes, log_a = saved
  decay = _decay(log_a)
  bars = [_read_bwd(reads, z, decay, bar[..., s, :, :]) for s, z in enumerate(_kinds(writes))]
  reads_bars, writes_bars, pairs = zip(*bars)
  reads_bar, writes_bar = sum(reads_bars), jnp.stack(writes_bars, axis=-3)
  return reads_bar.astype(reads.dtype), writes_bar.astype(writes.dtype), _log_decay_bar(sum(pairs))


scores.defvjp(_scores_fwd, _scores_bwd)


def _kinds(writes):
  """Takes one kind at a time: together they have seven axes, and XLA's CPU backend (0.10.2) crashes on fusing these."""
  return [writes[..., s, :, :] for s in range(writes.shape[-3])]


def _read(reads, write, decay):
  """Returns the scores [r, i, j] of one kind of writing."""
  product = functools.partial(multiply, factors=reads.dtype)
  if decay.shape[-1] < write.shape[-1]:
    return product("...rik,...jk->...rij", reads, write) * decay[..., None, :, :, 0]
  return product("...rik,...ijk->...rij", reads, decay * write[..., None, :, :])


def _read_bwd(reads, write, decay, bar):
  """Returns cotangents of `reads`, of `write`, and of the logarithm of each entry of `decay`."""
  product = functools.partial(multiply, factors=reads.dtype)
  if decay.shape[-1] < write.shape[-1]:
    plain = bar * decay[..., None, :, :, 0]
    pairs = (plain * product("...rik,...jk->...rij", reads, write)).sum(-3)[..., None]
    return product("...rij,...jk->...rik", plain, write), product("...rij,...rik->...jk", plain, reads), pairs
  carried, read = decay * write[..., None, :, :], product("...rij,...rik->...ijk", bar, reads)
  return product("...rij,...ijk->...rik", bar, carried), (read * decay).sum(-3), read * carried


def _decay(log_a: Float[Array, "*b c k"]) -> Float[Array, "*b c c k"]:
  """a_{j+1} ... a_i at [i, j] for j <= i, else 0."""
  high, low = running_sums(log_a, axis=log_a.ndim - 2)
  between = lambda z: z[..., :, None, :] - z[..., None, :, :]
  past = jnp.tri(log_a.shape[-2], dtype=bool)[..., None]
  return jnp.exp(jnp.where(past, between(high) + between(low), -jnp.inf))


def _log_decay_bar(pairs: Float[Array, "*b c c k"]) -> Float[Array, "*b c k"]:
  """Sums over i >= n > j, for log decay n, the cotangents of all pairs of tokens between which it stands."""
  c = pairs.shape[-2]
  past = jnp.tri(c, k=-1, dtype=pairs.dtype)  # [n, j]
  ends = einsum("nj,...ijk->...ink", past, pairs)
  return jnp.where(jnp.tri(c, dtype=bool)[..., None], ends, 0).sum(-3)


def running_sums(x: Float[Array, "..."], axis: int) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
  """Returns sums of x up to each place of an axis, as a rounded part and what rounding took away from it.

  A difference of two is as exact as if its terms were added up alone, whatever precedes them: after a decay of e^-100,
  plain float32 sums would know the decays of the next tokens to 5 digits.
  """
  return lax.associative_scan(add_sums, (x, jnp.zeros_like(x)), axis=axis)


def add_sums(
  first: tuple[Float[Array, "..."], Float[Array, "..."]], second: tuple[Float[Array, "..."], Float[Array, "..."]]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
  """Adds two such sums."""
  total = first[0] + second[0]
  taken = total - first[0]
  lost = (first[0] - (total - taken)) + (second[0] - taken)
  return total, first[1] + second[1] + lost
