"""Speculative decoding: a small model proposes some tokens, and a large one checks all of them at once.

Sources: Leviathan, Kalman & Matias 2023, arXiv:2211.17192, alg. 1; Chen et al. 2023, arXiv:2302.01318.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from inference.context import RECENT, Context, check_counts, check_model, rounded
from inference.decode import ends, make_stops, read, unstacked
from inference.generate import CHUNK, PREFILL_CHUNK, Prompts, opened, padded
from inference.sampling import Sampler, filtered, make_bias, make_sampler, row_keys
from mistake import Mistake

Variables = Mapping[str, Any]
# a draft model and its variables
Draft = tuple[nn.Module, Variables]
# tokens that the draft model proposes in a round
PROPOSALS = 4


class Speculated(NamedTuple):
  """The tokens that follow each prompt, how often the large model was asked, and the contexts to go on with."""

  tokens: Int[Array, "b m"]  # 0 past the lengths
  lengths: Int[Array, "b"]  # how many each row has, a stop sequence included
  stopped: Bool[Array, "b"]  # whether the row ends in a stop sequence
  rounds: Int[Array, "b"]  # times that the large model has checked proposals; each gives one token or more
  contexts: tuple[Context, Context]  # of the model and of the draft model


class Loop(NamedTuple):
  """The state of the loop: both models have read all of a row but its last token."""

  state: Any
  draft: Any
  last: Int[Array, "b"]
  recent: Int[Array, "b r"]
  tokens: Int[Array, "b m"]
  lengths: Int[Array, "b"]
  stopped: Bool[Array, "b"]
  rounds: Int[Array, "b"]
  done: Bool[Array, "b"]
  broken: Bool[Array, "b"]


class Pair(NamedTuple):
  """The large and the small model, and how tokens are drawn; static, as far as a compiled loop is concerned."""

  model: nn.Module
  draft: nn.Module
  sampler: Sampler
  proposals: int  # of each round


def speculate(
  model: nn.Module,
  variables: Variables,
  draft_model: nn.Module,
  draft_variables: Variables,
  prompts: Prompts | None,
  *,
  max_new_tokens: int,
  **settings: Any,
) -> Speculated:
  """Returns tokens that are distributed as those of `generate` with the model alone; greedy ones are the same.

  In each round the draft model proposes `num_speculative_tokens`. The model's probabilities of all of them come from
  one parallel pass. A proposal that the draft model drew with probability q is kept with probability min(1, p / q), up
  to the first that is not, in whose place a token is drawn from max(p - q, 0), normalised; after the last one a further
  token is drawn. States of all kinds are rolled back by reading the tokens that were kept again from the state before
  the round, which costs a second pass: it pays where a pass over some tokens takes as long as one over a single one,
  and where more than about two tokens a round are kept.

  Args:
    draft_model, draft_variables: a cheaper model with the same vocabulary.
    settings: keyword arguments of `pieces`.
  Raises:
    ValueError: as for `pieces`.
  """
  both = (model, draft_model), (variables, draft_variables)
  return next(pieces(*both, prompts, max_new_tokens=max_new_tokens, chunk=max_new_tokens, **settings))


def pieces(
  models: tuple[nn.Module, nn.Module],
  variables: tuple[Variables, Variables],
  prompts: Prompts | None,
  *,
  max_new_tokens: int,
  chunk: int = CHUNK,
  num_speculative_tokens: int = PROPOSALS,
  sampler: Sampler | None = None,
  stop: Sequence[Sequence[int]] = (),
  logit_bias: Mapping[int, float | int] | None = None,
  contexts: tuple[Context, Context] | None = None,
  room: int = 0,
  rng: Key[Array, "..."] | None = None,
  prefill_chunk: int = PREFILL_CHUNK,
) -> Iterator[Speculated]:
  """Yields what `speculate` returns in pieces of at most `chunk` tokens a row. Mistakes are found before the first.

  Args:
    models, variables: the model and the draft model, and theirs.
    sampler: greedy by default; without a penalty for repetitions, which the draft model's proposals would change.
    contexts: of the texts to go on with, in which the prompts come next; they are left as they were.
    stop, logit_bias, room, rng, prefill_chunk: see `inference.stream`.
  Raises:
    ValueError: the vocabularies differ, a size is below 1, a penalty is asked for; or as for `inference.stream`, where
      room for `num_speculative_tokens` more is needed.
  """
  pair = Pair(*models, make_sampler(*(sampler or Sampler(temperature=0.0))), num_speculative_tokens)
  check(pair, max_new_tokens)
  check_counts("speculate", chunk=chunk, prefill_chunk=prefill_chunk)
  vocab, before = pair.model.vocab, contexts or (None, None)
  tokens, lengths = padded(prompts, before[0], vocab)
  keys, stops, bias = row_keys(rng, len(lengths)), make_stops(stop, vocab), make_bias(logit_bias, vocab)

  def begun(one: nn.Module, its: Variables, context: Context | None) -> Context:
    context = opened(one, context, lengths, max_new_tokens, room, proposed=num_speculative_tokens)
    return read(one, its, context, tokens, lengths, chunk=prefill_chunk)

  both = begun(models[0], variables[0], before[0]), begun(models[1], variables[1], before[1])
  apart = variables[0], unstacked(models[1], variables[1])
  return _pieces(pair, apart, both, keys, stops, bias, max_new_tokens, chunk)


def _pieces(
  pair: Pair,
  variables: tuple[Variables, Variables],
  contexts: tuple[Context, Context],
  keys: Key[Array, "b"],
  stops: Any,
  bias: Any,
  total: int,
  chunk: int,
) -> Iterator[Speculated]:
  stopped = np.zeros(len(keys), bool)
  for done in range(0, total, chunk):
    count = min(chunk, total - done)
    limits = np.where(stopped, 0, count).astype(np.int32)
    size = rounded(min(chunk, total))
    piece, broken = _loop(pair, variables, contexts, keys, limits, stops, bias, size=size)
    if np.any(broken):
      raise Mistake(f"speculate: row {np.flatnonzero(broken)[0]} has NaN logits; the parameters are not finite")
    stopped, contexts = stopped | np.asarray(piece.stopped), piece.contexts
    yield piece._replace(tokens=piece.tokens[:, :count], stopped=jnp.asarray(stopped))
    if stopped.all():
      return


def check(pair: Pair, max_new_tokens: int) -> None:
  """Raises ValueError where a size is below 1, a penalty is asked for, or the models do not suit each other."""
  check_counts("speculate", max_new_tokens=max_new_tokens, num_speculative_tokens=pair.proposals)
  if pair.sampler.repetition_penalty != 1:
    penalty = pair.sampler.repetition_penalty
    raise Mistake(f"speculate: repetition_penalty={penalty} is not possible here; leave it at 1")
  for one in (pair.model, pair.draft):
    check_model(one)
  if pair.model.vocab != pair.draft.vocab:
    draft, vocab = pair.draft.vocab, pair.model.vocab
    raise Mistake(f"speculate: the draft model has vocab={draft} and the model {vocab}; use one with the same")


@partial(jax.jit, static_argnums=(0,), static_argnames=("size",))
def _loop(
  pair: Pair,
  variables: tuple[Variables, Variables],
  contexts: tuple[Context, Context],
  keys: Key[Array, "b"],
  limits: Int[Array, "b"],
  stops: Int[Array, "n w"] | None,
  bias: Float[Array, "v"] | None,
  *,
  size: int,
) -> tuple[Speculated, Bool[Array, "b"]]:
  large, small = contexts
  b = len(large.last)
  zero, no = jnp.zeros(b, jnp.int32), jnp.zeros(b, bool)
  output = jnp.zeros((b, size), jnp.int32), zero, no, zero
  loop = Loop(large.state, small.state, large.last, large.recent, *output, limits <= 0, no)

  def body(loop: Loop) -> Loop:
    step_keys = jax.vmap(jax.random.fold_in)(keys, loop.state.position)
    proposed, q = _propose(pair, variables[1], loop, bias, step_keys)
    fed = jnp.concatenate([loop.last[:, None], proposed], axis=1)
    logits, _ = pair.model.apply(variables[0], fed, loop.state, method="prefill_all")
    broken = jnp.isnan(logits).any(axis=(1, 2)) & ~loop.done
    accepted, following = _judge(proposed, q, _probabilities(logits, bias, pair.sampler), step_keys)
    new = jnp.where(
      jnp.arange(pair.proposals + 1) < accepted[:, None], jnp.pad(proposed, ((0, 0), (0, 1))), following[:, None]
    )
    count = jnp.where(loop.done, 0, jnp.minimum(accepted + 1, limits - loop.lengths))
    count, stopped, recent = _up_to_stop(new, count, loop.recent, stops)
    # both models read again what is kept of this round but its last token; rows that are done read nothing
    go_on = lambda model, its, state: model.apply(its, fed, state, lengths=count, method="prefill")[1]
    state = go_on(pair.model, variables[0], loop.state)
    draft = go_on(pair.draft, variables[1], loop.draft)
    last = jnp.where(loop.done, loop.last, jnp.take_along_axis(new, jnp.maximum(count - 1, 0)[:, None], axis=1)[:, 0])
    loop = _emit(loop, new, count)._replace(state=state, draft=draft, last=last, recent=recent)
    done = loop.done | stopped | (loop.lengths >= limits) | broken
    return loop._replace(stopped=loop.stopped | stopped, done=done, broken=loop.broken | broken)

  loop = jax.lax.while_loop(lambda loop: ~loop.done.all(), body, loop)
  valid = jnp.arange(size) < loop.lengths[:, None]
  place = jnp.arange(b)[:, None], jnp.where(valid, loop.tokens, large.seen.shape[1])
  seen = large.seen.at[place].set(True, mode="drop")
  after = lambda context, state: context._replace(state=state, last=loop.last, seen=seen, recent=loop.recent)
  both = after(large, loop.state), after(small, loop.draft)
  return Speculated(loop.tokens, loop.lengths, loop.stopped, loop.rounds, both), loop.broken


def _propose(
  pair: Pair, variables: Variables, loop: Loop, bias: Float[Array, "v"] | None, keys: Key[Array, "b"]
) -> tuple[Int[Array, "b k"], Float[Array, "b k v"]]:
  """Returns the draft model's proposals, and the probabilities that it drew each from."""

  def step(carry: tuple, number: Int[Array, ""]) -> tuple[tuple, tuple]:
    token, state = carry
    logits, state = pair.draft.apply(variables, token, state, method="step")
    q = _probabilities(logits, bias, pair.sampler)
    token = _draw(_numbered(keys, number), q)
    return (token, state), (token, q)

  _, (tokens, q) = jax.lax.scan(step, (loop.last, loop.draft), jnp.arange(pair.proposals))
  return tokens.T, jnp.moveaxis(q, 0, 1)


def _judge(
  proposed: Int[Array, "b k"], q: Float[Array, "b k v"], p: Float[Array, "b l v"], keys: Key[Array, "b"]
) -> tuple[Int[Array, "b"], Int[Array, "b"]]:
  """Returns how many proposals are kept, and the token that follows them."""
  row, count = jnp.arange(len(proposed)), proposed.shape[1]
  of = lambda z: jnp.take_along_axis(z, proposed[:, :, None], axis=2)[..., 0]
  chance = jax.vmap(lambda key: jax.random.uniform(key, (count,)))(_numbered(keys, count))
  # p / q > chance, also where q is 0 by rounding
  good = of(p[:, :-1]) > chance * of(q)
  accepted = jnp.cumprod(good, axis=1).sum(axis=1)
  # after the last proposal there is nothing to take away
  rest = jnp.maximum(p[row, accepted] - jnp.pad(q, ((0, 0), (0, 1), (0, 0)))[row, accepted], 0)
  # equal distributions reject nothing but by rounding
  rest = jnp.where(rest.sum(axis=-1, keepdims=True) > 0, rest, p[row, accepted])
  return accepted, _draw(_numbered(keys, count + 1), rest)


def _probabilities(
  logits: Float[Array, "*b v"], bias: Float[Array, "v"] | None, sampler: Sampler
) -> Float[Array, "*b v"]:
  """Returns the probabilities that the sampler draws from; all on the likeliest token at temperature 0."""
  logits = logits if bias is None else logits + bias
  if sampler.temperature == 0:
    return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
  return jax.nn.softmax(filtered(logits, sampler), axis=-1)


def _draw(keys: Key[Array, "b"], weights: Float[Array, "b v"]) -> Int[Array, "b"]:
  return jax.vmap(jax.random.categorical)(keys, jnp.log(weights)).astype(jnp.int32)


def _numbered(keys: Key[Array, "b"], number: int | Int[Array, ""]) -> Key[Array, "b"]:
  return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def _up_to_stop(
  new: Int[Array, "b l"], count: Int[Array, "b"], recent: Int[Array, "b r"], stops: Int[Array, "n w"] | None
) -> tuple[Int[Array, "b"], Bool[Array, "b"], Int[Array, "b r"]]:
  """Returns how many of `count` new tokens there are up to a stop, whether there is one, and the tokens drawn last."""
  line = jnp.concatenate([recent, new], axis=1)
  number = jnp.arange(new.shape[1] + 1)
  windows = jax.vmap(lambda row: jax.vmap(lambda n: jax.lax.dynamic_slice(row, (n,), (RECENT,)))(number))(line)
  ended = ends(windows, stops) & (number > 0) & (number <= count[:, None])
  stopped = ended.any(axis=1)
  count = jnp.where(stopped, jnp.argmax(ended, axis=1), count).astype(jnp.int32)
  return count, stopped, jnp.take_along_axis(windows, count[:, None, None], axis=1)[:, 0]


def _emit(loop: Loop, new: Int[Array, "b l"], count: Int[Array, "b"]) -> Loop:
  """Returns the loop with `count` new tokens in each row, and one more round in the rows that are not done."""
  column = jnp.arange(new.shape[1])
  slot = jnp.where(column < count[:, None], loop.lengths[:, None] + column, loop.tokens.shape[1])
  tokens = loop.tokens.at[jnp.arange(len(new))[:, None], slot].set(new, mode="drop")
  return loop._replace(tokens=tokens, lengths=loop.lengths + count, rounds=loop.rounds + ~loop.done)
