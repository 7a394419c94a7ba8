"""Speculative decoding: a small model proposes some tokens, and a large one checks all of them at once.

Sources: Leviathan, Kalman & Matias 2023, arXiv:2211.17192, alg. 1; Chen et al. 2023, arXiv:2302.01318.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from inference.context import RECENT, Context, check_model, rounded
from inference.decode import ends, make_stops, read, unstacked
from inference.generate import PREFILL_CHUNK, Prompts, opened, padded
from inference.sampling import Sampler, filtered, make_sampler, row_keys
from mistake import Mistake

Variables = Mapping[str, Any]


class Speculated(NamedTuple):
  """The tokens that follow each prompt, and how often the large model was asked."""

  tokens: Int[Array, "b m"]  # 0 past the lengths
  lengths: Int[Array, "b"]  # how many each row has, a stop sequence included
  stopped: Bool[Array, "b"]  # whether the row ends in a stop sequence
  rounds: Int[Array, "b"]  # times that the large model has checked proposals; each gives one token or more


class Loop(NamedTuple):
  """The state of the loop: both models have read all of a row but its last token."""

  state: Any
  draft: Any
  last: Int[Array, "b"]
  recent: Int[Array, "b r"]
  output: Speculated
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
  prompts: Prompts,
  *,
  max_new_tokens: int,
  num_speculative_tokens: int = 4,
  sampler: Sampler | None = None,
  stop: Sequence[Sequence[int]] = (),
  rng: Key[Array, "..."] | None = None,
  prefill_chunk: int = PREFILL_CHUNK,
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
    sampler: greedy by default; without a penalty for repetitions, which the draft model's proposals would change.
    stop, rng, prefill_chunk: see `inference.stream`.
  Raises:
    ValueError: the vocabularies differ, a size is below 1, a penalty is asked for; or as for `inference.stream`, where
      room for `num_speculative_tokens` more is needed.
  """
  sampler = make_sampler(*(sampler or Sampler(temperature=0.0)))
  pair = Pair(model, draft_model, sampler, num_speculative_tokens)
  _check(pair, max_new_tokens)
  tokens, lengths = padded(prompts, None, model.vocab)
  keys, stops = row_keys(rng, len(lengths)), make_stops(stop, model.vocab)

  def begun(one: nn.Module, its: Variables) -> Context:
    context = opened(one, None, lengths, max_new_tokens + num_speculative_tokens, 0)
    return read(one, its, context, tokens, lengths, chunk=prefill_chunk)

  context, draft = begun(model, variables), begun(draft_model, draft_variables)
  output, broken = _loop(
    pair,
    (variables, unstacked(draft_model, draft_variables)),
    (context.state, draft.state),
    context.last,
    keys,
    max_new_tokens,
    stops,
    size=rounded(max_new_tokens),
  )
  if np.any(broken):
    raise Mistake(f"speculate: row {np.flatnonzero(broken)[0]} has NaN logits; the parameters are not finite")
  return output._replace(tokens=output.tokens[:, :max_new_tokens])


def _check(pair: Pair, max_new_tokens: int) -> None:
  for name, value in (("max_new_tokens", max_new_tokens), ("num_speculative_tokens", pair.proposals)):
    if value < 1:
      raise Mistake(f"speculate: {name}={value}; give at least 1")
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
  states: tuple[Any, Any],
  last: Int[Array, "b"],
  keys: Key[Array, "b"],
  limit: int | Int[Array, ""],
  stops: Int[Array, "n w"] | None,
  *,
  size: int,
) -> tuple[Speculated, Bool[Array, "b"]]:
  b = len(last)
  zero, no = jnp.zeros(b, jnp.int32), jnp.zeros(b, bool)
  output = Speculated(jnp.zeros((b, size), jnp.int32), zero, no, zero)
  loop = Loop(*states, last, jnp.full((b, RECENT), -1, jnp.int32), output, no, no)

  def body(loop: Loop) -> Loop:
    step_keys = jax.vmap(jax.random.fold_in)(keys, loop.state.position)
    proposed, q = _propose(pair, variables[1], loop, step_keys)
    fed = jnp.concatenate([loop.last[:, None], proposed], axis=1)
    logits, _ = pair.model.apply(variables[0], fed, loop.state, method="prefill_all")
    broken = jnp.isnan(logits).any(axis=(1, 2)) & ~loop.done
    accepted, following = _judge(proposed, q, _probabilities(logits, pair.sampler), step_keys)
    new = jnp.where(
      jnp.arange(pair.proposals + 1) < accepted[:, None], jnp.pad(proposed, ((0, 0), (0, 1))), following[:, None]
    )
    count, stopped, recent = _up_to_stop(new, accepted + 1, loop.recent, stops)
    loop = _emit(loop, new, count, stopped, limit)._replace(broken=loop.broken | broken, recent=recent)
    # what is kept of this round, read again by both models; rows that are done read nothing
    read = jnp.where(loop.done, 0, accepted + 1)
    go_on = lambda model, its, state: model.apply(its, fed, state, lengths=read, method="prefill")[1]
    state = go_on(pair.model, variables[0], loop.state)
    draft = go_on(pair.draft, variables[1], loop.draft)
    return loop._replace(state=state, draft=draft, last=following, done=loop.done | broken)

  loop = jax.lax.while_loop(lambda loop: ~loop.done.all(), body, loop)
  return loop.output, loop.broken


def _propose(
  pair: Pair, variables: Variables, loop: Loop, keys: Key[Array, "b"]
) -> tuple[Int[Array, "b k"], Float[Array, "b k v"]]:
  """Returns the draft model's proposals, and the probabilities that it drew each from."""

  def step(carry: tuple, number: Int[Array, ""]) -> tuple[tuple, tuple]:
    token, state = carry
    logits, state = pair.draft.apply(variables, token, state, method="step")
    q = _probabilities(logits, pair.sampler)
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


def _probabilities(logits: Float[Array, "*b v"], sampler: Sampler) -> Float[Array, "*b v"]:
  """Returns the probabilities that the sampler draws from; all on the likeliest token at temperature 0."""
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
  """Returns how many new tokens there are up to the first stop, whether there is one, and the tokens drawn last."""
  line = jnp.concatenate([recent, new], axis=1)
  number = jnp.arange(1, new.shape[1] + 1)
  windows = jax.vmap(lambda row: jax.vmap(lambda n: jax.lax.dynamic_slice(row, (n,), (RECENT,)))(number))(line)
  ended = ends(windows, stops) & (number <= count[:, None])
  stopped = ended.any(axis=1)
  count = jnp.where(stopped, jnp.argmax(ended, axis=1) + 1, count).astype(jnp.int32)
  return count, stopped, jnp.take_along_axis(windows, (count - 1)[:, None, None], axis=1)[:, 0]


def _emit(
  loop: Loop, new: Int[Array, "b l"], count: Int[Array, "b"], stopped: Bool[Array, "b"], limit: int | Int[Array, ""]
) -> Loop:
  """Returns the loop with `count` new tokens in the rows that are not done, as far as the limit allows."""
  output, live = loop.output, ~loop.done
  slot = output.lengths[:, None] + jnp.arange(new.shape[1])
  inside = (jnp.arange(new.shape[1]) < count[:, None]) & live[:, None] & (slot < limit)
  tokens = output.tokens.at[jnp.arange(len(new))[:, None], jnp.where(inside, slot, output.tokens.shape[1])].set(
    new, mode="drop"
  )
  total = output.lengths + inside.sum(axis=1, dtype=jnp.int32)
  # a stop that lies beyond the limit is none
  stopped = live & stopped & (output.lengths + count <= limit)
  output = Speculated(tokens, total, output.stopped | stopped, output.rounds + live)
  return loop._replace(output=output, done=loop.done | stopped | (total >= limit))
