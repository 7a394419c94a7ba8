"""Beam search: the likeliest continuations that a search of some width finds, in one compiled loop."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from inference.context import Context, check_counts, check_model, fork, rounded, rows
from inference.decode import ends, make_stops, read, unstacked
from inference.generate import PREFILL_CHUNK, Prompts, opened, padded
from inference.sampling import Sampler, adjusted, make_bias, make_sampler
from mistake import Mistake


class Beams(NamedTuple):
  """The continuations of each prompt that a search has found, the best first."""

  tokens: Int[Array, "b n m"]  # 0 past the lengths
  lengths: Int[Array, "b n"]  # how many each has, a stop sequence included
  scores: Float[Array, "b n"]  # log-probability / length ** length_penalty; -inf where there are fewer continuations


class Search(NamedTuple):
  """The state of a search: continuations that go on, whose scores are log-probabilities, and those that have ended."""

  step: Int[Array, ""]
  context: Context  # of the live ones, `n` rows a prompt
  live: Float[Array, "b n"]
  tokens: Int[Array, "b n m"]
  ended: Beams
  broken: Bool[Array, "b"]  # whether logits were no numbers


def beam_search(
  model: nn.Module,
  variables: Mapping[str, Any],
  prompts: Prompts,
  *,
  max_new_tokens: int,
  num_beams: int,
  length_penalty: float | int = 1.0,
  stop: Sequence[Sequence[int]] = (),
  logit_bias: Mapping[int, float | int] | None = None,
  repetition_penalty: float | int = 1.0,
  prefill_chunk: int = PREFILL_CHUNK,
) -> Beams:
  """Returns the `num_beams` best continuations that the search finds for each prompt, which is read once.

  At every step the `num_beams` likeliest unfinished continuations of a prompt stay, and their states move with them.
  A continuation ends in a stop sequence or at `max_new_tokens`. The search goes on until no unfinished one can become
  better than the worst of `num_beams` finished ones (`early_stopping="never"` of `transformers`).

  Args:
    num_beams: 1 is greedy decoding.
    length_penalty: p in log-probability / length ** p; 0 compares log-probabilities, larger p favours long texts.
    stop, logit_bias, repetition_penalty, prefill_chunk: see `inference.stream`; log-probabilities are those of the
      changed logits.
  Raises:
    ValueError: `num_beams` is below 1, the penalty is not finite, or as for `inference.stream`.
  """
  check_counts("beam_search", max_new_tokens=max_new_tokens, num_beams=num_beams, prefill_chunk=prefill_chunk)
  if not abs(length_penalty) < float("inf"):
    raise Mistake(f"beam_search: length_penalty={length_penalty}; give a finite number, e.g. 1")
  check_model(model)
  sampler = make_sampler(temperature=0.0, repetition_penalty=repetition_penalty)
  tokens, lengths = padded(prompts, None, model.vocab)
  bias, stops = make_bias(logit_bias, model.vocab), make_stops(stop, model.vocab)
  context = opened(model, None, lengths, max_new_tokens, 0)
  context = fork(read(model, variables, context, tokens, lengths, chunk=prefill_chunk), num_beams)
  sizes = {"size": rounded(max_new_tokens), "beams": num_beams, "sampler": sampler}
  apart = unstacked(model, variables)
  results, broken, _ = _search(model, apart, context, max_new_tokens, float(length_penalty), bias, stops, **sizes)
  if np.any(broken):
    raise Mistake(
      f"beam_search: prompt {np.flatnonzero(broken)[0]} has NaN logits; the model's parameters are not finite"
    )
  return results._replace(tokens=results.tokens[:, :, :max_new_tokens])


@partial(jax.jit, static_argnums=(0,), static_argnames=("size", "beams", "sampler"), donate_argnames=("context",))
def _search(
  model: nn.Module,
  variables: Mapping[str, Any],
  context: Context,
  limit: int | Int[Array, ""],
  penalty: float | Float[Array, ""],
  bias: Float[Array, "v"] | None,
  stops: Int[Array, "k w"] | None,
  *,
  size: int,
  beams: int,
  sampler: Sampler,
) -> tuple[Beams, Bool[Array, "b"], Context]:
  """Returns the best, which prompts have logits that are not numbers, and the context, whose memory it reuses."""
  b = len(context.last) // beams
  nothing = jnp.full((b, beams), -jnp.inf)
  # all beams are the prompt, and one of them counts
  live = nothing.at[:, 0].set(0)
  tokens = jnp.zeros((b, beams, size), jnp.int32)
  ended = Beams(tokens, jnp.zeros((b, beams), jnp.int32), nothing)
  search = Search(jnp.int32(0), context, live, tokens, ended, jnp.zeros(b, bool))

  def more(search: Search) -> Bool[Array, ""]:
    # the best that an unfinished one may become: no log-probability is above 0
    length = jnp.where(penalty > 0, limit, search.step + 1)
    hope = search.live.max(axis=1) / length.astype(jnp.float32) ** penalty
    settled = (hope <= search.ended.scores.min(axis=1)) | search.broken
    return (search.step < limit) & ~settled.all()

  def body(search: Search) -> Search:
    return _advance(model, variables, search, penalty, bias, stops, sampler)

  search = jax.lax.while_loop(more, body, search)
  # where the search was settled before, the unfinished ones are worse anyway
  scores = jnp.where(search.step == limit, search.live / search.step.astype(jnp.float32) ** penalty, -jnp.inf)
  unfinished = Beams(search.tokens, jnp.full((b, beams), search.step), scores)
  best = _best(search.ended, unfinished)
  exists = ~jnp.isneginf(best.scores)
  return best._replace(lengths=jnp.where(exists, best.lengths, 0)), search.broken, search.context


def _advance(
  model: nn.Module,
  variables: Mapping[str, Any],
  search: Search,
  penalty: float | Float[Array, ""],
  bias: Float[Array, "v"] | None,
  stops: Int[Array, "k w"] | None,
  sampler: Sampler,
) -> Search:
  """Returns the search after one more token."""
  (b, n), context = search.live.shape, search.context
  state: Any
  logits, state = model.apply(variables, context.last, context.state, method="step")
  broken = search.broken | jnp.isnan(logits).any(axis=-1).reshape(b, n).any(axis=1)
  logprobs = jax.nn.log_softmax(adjusted(logits, context.seen, bias, sampler), axis=-1)
  vocab = logprobs.shape[-1]
  scores = (search.live[:, :, None] + logprobs.reshape(b, n, vocab)).reshape(b, n * vocab)
  # of one beam as many candidates can end as there are stop sequences, so that n of these do not
  count = min(n * (1 + (0 if stops is None else len(stops))), n * vocab)
  scores, index = jax.lax.top_k(scores, count)
  parent, token = index // vocab, (index % vocab).astype(jnp.int32)
  recent = _of(context.recent.reshape(b, n, -1), parent)
  recent = jnp.concatenate([recent[:, :, 1:], token[:, :, None]], axis=-1)
  tokens = _of(search.tokens, parent).at[:, :, search.step].set(token)
  step = search.step + 1
  end = ends(recent, stops)
  whole = jnp.where(end, scores / step.astype(jnp.float32) ** penalty, -jnp.inf)
  ended = _best(search.ended, Beams(tokens, jnp.full(tokens.shape[:2], step), whole))
  live, chosen = jax.lax.top_k(jnp.where(end, -jnp.inf, scores), min(n, count))
  live, chosen = _filled(live, n, -jnp.inf), _filled(chosen, n, 0)
  parent, token = _of(parent, chosen), _of(token, chosen).reshape(-1)
  moved = rows(context._replace(state=state), (parent + n * jnp.arange(b)[:, None]).reshape(-1))
  seen = moved.seen.at[jnp.arange(b * n), token].set(True)
  context = moved._replace(last=token, seen=seen, recent=_of(recent, chosen).reshape(b * n, -1))
  return Search(step, context, live, _of(tokens, chosen), ended, broken)


def _best(old: Beams, new: Beams) -> Beams:
  """Returns as many of both as `old` has, the best first."""
  both = Beams(*(jnp.concatenate(pair, axis=1) for pair in zip(old, new)))
  scores, index = jax.lax.top_k(both.scores, old.scores.shape[1])
  return Beams(_of(both.tokens, index), _of(both.lengths, index), scores)


def _of(leaf: Array, index: Int[Array, "b k"]) -> Array:
  """Returns the entries `index` of the second axis, row by row."""
  return jnp.take_along_axis(leaf, jax.lax.expand_dims(index, range(2, leaf.ndim)), axis=1)


def _filled(leaf: Array, count: int, value: float) -> Array:
  return jnp.pad(leaf, ((0, 0), (0, count - leaf.shape[1])), constant_values=value)
