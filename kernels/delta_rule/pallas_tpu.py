"""`delta_rule` with one decay a head on TPUs: chunks as matrix products. Never run on a TPU; its speed is unmeasured.

A program of the grid has a chunk of time of one head of one row, and finds its state where the one before left it: in
the block of the last states, which stays in VMEM. What the tokens of a chunk write, (1 + L) e = v - w a S, see
`xla.py`, is found with the inverse of 1 + L, which is made from those of its diagonal blocks. The gradient makes all of
this again, from the states entering the chunks, and needs the transposed inverse.
"""

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from kernels import decays, dispatch, kept_states, tpu
from kernels.ssd import tpu_blocks
from kernels.ssd.tpu_blocks import Blocks, Decays, index

TOKENS = 64  # of a chunk, at most


def why_not(q, k, v, w, u, log_a, S, reset) -> str | None:
  """Returns why this kernel cannot run these arguments, before the reasons of `tpu.why_not`."""
  if u is not None:
    return "what is found is written at u; it knows k alone, as in DeltaNet and Gated DeltaNet"
  if log_a is not None and log_a.shape[-1] > 1:
    return "there is a decay for each row of the state; it knows one for all"
  return tpu.why_not(q, k, v, w, S, *(() if log_a is None else (log_a,)))


def delta_rule(q, k, v, w, u, log_a, S, reset):
  """Computes `reference.delta_rule`."""
  log_a = jnp.zeros((*v.shape[:3], 1), v.dtype) if log_a is None else log_a
  log_a = decays.clear(log_a, reset)[..., 0]
  # a document finds nothing of the one before it
  w = w if reset is None else jnp.where(reset[:, :, None, None], 0, w)
  axes = ("b t h k", "b t h k", "b t h p", "b t h k", "b t h", "b h k p")
  return dispatch.shard(_delta_rule, axes, ("b t h p", "b h k p"))(q, k, v, w, log_a, S)


def _blocks(k, v, *, back):
  """Makes every head a group of its own."""
  return Blocks(k, v, most=(TOKENS, 1), back=back)


def _arrays(blocks, q, k, v, w, log_a):
  """Returns pairs of arrays and their blocks; decays through each token of a chunk stand over those before it."""
  sums = jnp.concatenate(decays.running_sums(blocks.fold_decays(log_a), axis=4), axis=3)
  before = jnp.pad(sums[..., :-1], [(0, 0)] * 4 + [(1, 0)])
  keys = blocks.by_token
  tokens = zip(map(blocks.fold, (q, k, v, w)), (keys, keys, blocks.by_token_and_head, keys))
  return *tokens, (jnp.concatenate([sums, before], axis=3), blocks.decay(4))


def _run(q, k, v, w, log_a, S, *, save):
  """Returns all y, the last states, and if `save` the states before each chunk."""
  blocks = _blocks(k, v, back=False)
  states = 1, blocks.k, blocks.p
  y, last, *entries = tpu.in_order(
    _forward_kernel,
    blocks,
    "delta_rule",
    [*_arrays(blocks, q, k, v, w, log_a), (blocks.fold_states(S), blocks.by_row)],
    [
      (blocks.like(blocks.t, blocks.p), blocks.by_token_and_head),
      *((blocks.like(*states), blocks.by_row), *[(blocks.like(blocks.chunks, *states), blocks.by_chunk)] * save),
    ],
  )
  return blocks.unfold(y, v), last.reshape(S.shape), *entries


def _forward_kernel(blocks, q, k, v, w, sums, S, y, last, *entries):
  @pl.when(pl.program_id(2) == 0)
  def _():
    last[...] = S[...]

  for entry in entries:
    entry[...] = last[...]
  q, k, v, w = blocks.read((q, k, v, w))
  decay, between, before = _decays(sums)
  S = last[0]
  inverse = _inverse(between * tpu.product(w, k, 1, 1))
  written = tpu.product(inverse, v - before * tpu.product(w, S))
  y[...] = tpu.product(decay.inside * tpu.product(q, k, 1, 1), written) + decay.enter * tpu.product(q, S)
  last[0] = decay.across * S + tpu.product(decay.leave * k, written, 0, 0)


def _backward(q, k, v, w, log_a, entries, y_bar, last_bar):
  blocks = _blocks(k, v, back=True)
  keys_bar, values = (blocks.like(blocks.t, blocks.k), blocks.by_token), blocks.by_token_and_head
  *bars, log_a_bar, S_bar = tpu.in_order(
    _backward_kernel,
    blocks,
    "delta_rule_backward",
    [
      *(*_arrays(blocks, q, k, v, w, log_a), (entries, blocks.by_chunk)),
      *((blocks.fold(y_bar), values), (blocks.fold_states(last_bar), blocks.by_row)),
    ],
    [
      *(keys_bar, keys_bar, (blocks.like(blocks.t, blocks.p), values), keys_bar),
      (blocks.like(*blocks.grid[1:], 1, blocks.tokens), blocks.decay(1)),
      (blocks.like(1, blocks.k, blocks.p), blocks.by_row),
    ],
  )
  bars = (blocks.unfold(z, argument) for z, argument in zip(bars, (q, k, v, w)))
  return *bars, blocks.unfold_decays(log_a_bar), S_bar.reshape(last_bar.shape)


def _backward_kernel(blocks, q, k, v, w, sums, entry, y_bar, last_bar, q_bar, k_bar, v_bar, w_bar, log_a_bar, S_bar):
  @pl.when(pl.program_id(2) == 0)
  def _():
    S_bar[...] = last_bar[...]

  q, k, v, w, y_bar = blocks.read((q, k, v, w, y_bar))
  decay, between, before = _decays(sums)
  S, after_bar = entry[0], S_bar[0]
  lower = between * tpu.product(w, k, 1, 1)
  inverse = _inverse(lower)
  written = tpu.product(inverse, v - before * tpu.product(w, S))
  weights, leaving = decay.inside * tpu.product(q, k, 1, 1), decay.leave * k

  written_bar = tpu.product(weights, y_bar, 0, 0) + tpu.product(leaving, after_bar)
  # of what is missing: new values less what was there
  missing_bar = tpu.product(inverse, written_bar, 0, 0)
  weights_bar, lower_bar = tpu.product(y_bar, written, 1, 1), -tpu.product(missing_bar, written, 1, 1)
  scores_bar, retrieved_bar = decay.inside * weights_bar, between * lower_bar
  read_bar, missed_bar = tpu.product(y_bar, S, 1, 1), -tpu.product(missing_bar, S, 1, 1)
  leaving_bar = tpu.product(written, after_bar, 1, 1)
  q_bar[...] = tpu.product(scores_bar, k) + decay.enter * read_bar
  w_bar[...] = tpu.product(retrieved_bar, k) + before * missed_bar
  k_bar[...] = tpu.product(scores_bar, q, 0, 0) + tpu.product(retrieved_bar, w, 0, 0) + decay.leave * leaving_bar
  v_bar[...] = missing_bar
  log_a_bar[...] = _log_decay_bar(
    Decays(
      inside=weights * weights_bar,
      enter=(decay.enter * q * read_bar).sum(1, keepdims=True),
      leave=(leaving * leaving_bar).sum(1, keepdims=True),
      across=decay.across * (S * after_bar).sum(0, keepdims=True).sum(1, keepdims=True),
    ),
    lower * lower_bar,
    (before * w * missed_bar).sum(1, keepdims=True),
  )
  S_bar[0] = decay.across * after_bar + tpu.product(decay.enter * q, y_bar, 0, 0)
  S_bar[0] -= tpu.product(before * w, missing_bar, 0, 0)


_delta_rule = kept_states.differentiable(_run, _backward, state=5)


def _decays(sums) -> tuple[Decays, Float[Array, "c c"], Float[Array, "c 1"]]:
  """Returns the decays through each token, those between tokens j < i at [i, j], and those before each token."""
  high, low, high_i, low_i = sums[0:1], sums[1:2], tpu.turn(sums[2:3]), tpu.turn(sums[3:4])
  between = (high_i - high) + (low_i - low)
  between = jnp.exp(jnp.where(index(0, between) > index(1, between), between, -jnp.inf))
  return tpu_blocks.decays_of(high, low), between, jnp.exp(high_i + low_i)


def _inverse(lower: Float[Array, "c c"]) -> Float[Array, "c c"]:
  """Returns the inverse of 1 + L, where L holds what each token reads back of the earlier ones in the block.

  It inverts diagonal blocks of 1, 2, 4, ... tokens, two at a time: the inverse of [[A, 0], [C, B]] has -B^-1 C A^-1 in
  the corner. This is substitution by blocks, and its numbers are entries of inverses of parts of the matrix. The same
  inverse is a product of powers of L, (1 - L) (1 + L^2) (1 + L^4) ..., but these cancel: for 64 equal keys written with
  a step of 2 they reach 10^27, where the inverse has no number above 2.
  """
  row, column = index(0, lower), index(1, lower)
  inverse = jnp.where(row == column, 1.0, 0.0)
  for level in range((len(lower) - 1).bit_length()):
    corner = jnp.where(lax.shift_right_logical(row ^ column, level) == 1, lower, 0.0)
    inverse -= tpu.product(inverse, tpu.product(corner, inverse))
  return inverse


def _log_decay_bar(through: Decays, between: Float[Array, "c c"], before: Float[Array, "c 1"]) -> Float[Array, "1 c"]:
  """Does the same as `tpu_blocks.log_decay_bar`, also for segments that end before the token that they belong to."""
  row, column = index(0, between), index(1, between)
  ends = tpu.product(between, jnp.where(row < column, 1.0, 0.0)) + before
  return tpu_blocks.log_decay_bar(through) + jnp.where(row > column, ends, 0.0).sum(0, keepdims=True)
