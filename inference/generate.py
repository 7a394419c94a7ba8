"""Continuing token sequences: prompts of any lengths in one batch, drawn all at once or piece by piece."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from inference.context import Context, check_counts, check_model, fork, rounded, start
from inference.decode import Drawn, draw, make_stops, read, unstacked
from inference.sampling import Sampler, make_bias, make_sampler, row_keys
from mistake import Mistake

AnyArray = Array | np.ndarray
Prompts = Sequence[Sequence[int] | Int[AnyArray, "_"]] | Int[AnyArray, "_ _"]
# tokens of a prompt that are read at once, and tokens that are drawn between two calls of a callback
PREFILL_CHUNK, CHUNK = 2048, 16


class Generated(NamedTuple):
  """The tokens that follow each prompt, and the context with which the text goes on."""

  tokens: Int[Array, "b m"]  # 0 past the lengths
  lengths: Int[Array, "b"]  # how many each row has, a stop sequence included
  logprobs: Float[Array, "b m"]  # log-probability of each, by the model alone: no temperature, penalty or bias
  stopped: Bool[Array, "b"]  # whether the row ends in a stop sequence
  context: Context

  def rows(self) -> list[list[int]]:
    """Returns the tokens of each row as a list, without the padding."""
    return [row[:length] for row, length in zip(np.asarray(self.tokens).tolist(), np.asarray(self.lengths))]


def generate(
  model: nn.Module,
  variables: Mapping[str, Any],
  prompts: Prompts | None,
  *,
  max_new_tokens: int,
  callback: Callable[[Generated], Any] | None = None,
  **settings: Any,
) -> Generated:
  """Returns the tokens that follow each prompt. A row's tokens do not depend on the other rows.

  Args:
    prompts: token numbers, of any lengths. With `context`, what follows there; None, or an empty row, just goes on.
    max_new_tokens: fewer are drawn in a row that meets a stop sequence.
    callback: is called with each piece of the result (16 tokens a row) as soon as it is drawn.
    settings: keyword arguments of `stream`: sampler, stop, logit_bias, num_return_sequences, context, room, rng,
      prefill_chunk.
  Raises:
    ValueError: as for `stream`.
  """
  settings |= {"max_new_tokens": max_new_tokens, "chunk": CHUNK if callback else max_new_tokens}
  pieces = []
  for piece in stream(model, variables, prompts, **settings):
    pieces.append(piece)
    if callback:
      callback(piece)
  return join(pieces, max_new_tokens)


def join(pieces: Sequence[Generated], width: int) -> Generated:
  """Returns the pieces of a stream as one result of `width` columns."""

  def columns(*parts: Array) -> Array:
    joined = jnp.concatenate(parts, axis=1)[:, :width]
    return jnp.pad(joined, ((0, 0), (0, width - joined.shape[1])))

  tokens, logprobs = (columns(*(getattr(piece, name) for piece in pieces)) for name in ("tokens", "logprobs"))
  lengths = sum((piece.lengths for piece in pieces), start=jnp.zeros_like(pieces[0].lengths))
  return Generated(tokens, lengths, logprobs, pieces[-1].stopped, pieces[-1].context)


def stream(
  model: nn.Module,
  variables: Mapping[str, Any],
  prompts: Prompts | None,
  *,
  max_new_tokens: int,
  chunk: int = CHUNK,
  sampler: Sampler | None = None,
  stop: Sequence[Sequence[int]] = (),
  logit_bias: Mapping[int, float | int] | None = None,
  num_return_sequences: int = 1,
  context: Context | None = None,
  room: int = 0,
  rng: Key[Array, "..."] | None = None,
  prefill_chunk: int = PREFILL_CHUNK,
) -> Iterator[Generated]:
  """Yields what `generate` returns in pieces of at most `chunk` tokens a row. All mistakes are found before the first.

  The context of a piece is used up when the next piece is asked for.

  Args:
    chunk: tokens a compiled call; small shows the text sooner, large costs less.
    sampler: greedy by default.
    stop: sequences of tokens after which a row ends.
    logit_bias: token -> what is added to its logit; -inf forbids it.
    num_return_sequences: how many texts follow each prompt, which is read once; those of one prompt are neighbours.
    context: of texts to go on with, in which the prompts come next; it is left as it was. None starts new ones.
    room: tokens that new contexts can hold, for going on later; those of prompt and continuation by default.
    rng: one key for each row, or one for all, of which each row takes its own; key 0 by default. Used above
      temperature 0 only.
    prefill_chunk: tokens of a prompt that are read at once; small needs less memory.
  Raises:
    ValueError: an empty prompt, a token outside the vocabulary, a size below 1, more tokens than the model's `max_len`
      or the context has room for, a stop sequence or a bias that does not fit, a model that cannot generate; or
      parameters that are not finite.
  """
  sampler = make_sampler(*(sampler or Sampler(temperature=0.0)))
  counts = dict(max_new_tokens=max_new_tokens, chunk=chunk, num_return_sequences=num_return_sequences)
  check_counts("generate", **counts, prefill_chunk=prefill_chunk)
  check_model(model)
  tokens, lengths = padded(prompts, context, model.vocab)
  context = opened(model, context, lengths, max_new_tokens, room)
  bias, stops = make_bias(logit_bias, model.vocab), make_stops(stop, model.vocab)
  keys = row_keys(rng, len(lengths) * num_return_sequences)
  variables, apart = jax.device_put(variables), unstacked(model, variables)
  context = read(model, variables, context, tokens, lengths, chunk=prefill_chunk)
  context = fork(context, num_return_sequences) if num_return_sequences > 1 else context
  size = min(rounded(chunk), rounded(max_new_tokens))
  return _pieces(model, apart, context, keys, bias, stops, max_new_tokens, chunk, size=size, sampler=sampler)


def _pieces(
  model: nn.Module,
  variables: Mapping[str, Any],
  context: Context,
  keys: Key[Array, "b"],
  bias: Any,
  stops: Any,
  total: int,
  chunk: int,
  **static: Any,
) -> Iterator[Generated]:
  stopped = np.zeros(len(keys), bool)
  for done in range(0, total, chunk):
    count = min(chunk, total - done)
    limits = np.where(stopped, 0, count).astype(np.int32)
    drawn, context = draw(model, variables, context, keys, limits, bias, stops, alike=True, **static)
    check_numbers(drawn, done)
    stopped = stopped | np.asarray(drawn.stopped)
    yield Generated(drawn.tokens[:, :count], drawn.lengths, drawn.logprobs[:, :count], jnp.asarray(stopped), context)
    if stopped.all():
      return


def padded(
  prompts: Prompts | None, context: Context | None, vocab: int
) -> tuple[Int[np.ndarray, "b t"], Int[np.ndarray, "b"]]:
  """Returns the tokens to read, right-padded, and how many each row has: what a context has not read, and the prompts.

  Raises:
    ValueError: there is no prompt, one is empty with nothing before it, or has a token outside the vocabulary; or the
      context has another number of rows.
  """
  if prompts is None and context is not None:
    prompts = [()] * len(context.last)
  rows = [as_tokens(prompt, number) for number, prompt in enumerate([] if prompts is None else prompts)]
  if not rows:
    raise Mistake("generate: there are no prompts; give a list of token sequences")
  for number, row in enumerate(rows):
    if context is None and not row.size:
      raise Mistake(f"generate: the prompt has no tokens (row {number}); give at least one to start from")
    wrong = row[(row < 0) | (row >= vocab)]
    if wrong.size:
      raise Mistake(f"generate: the prompt of row {number} has token {wrong[0]}; the model's are 0 … {vocab - 1}")
  rows = [row.astype(np.int32) for row in rows]
  if context is not None:
    if len(context.last) != len(rows):
      raise Mistake(f"generate: {len(rows)} prompts for a context of {len(context.last)} rows; give one for each")
    rows = [np.append(last, row) if row.size else row for last, row in zip(np.asarray(context.last), rows)]
  lengths = np.array([row.size for row in rows], np.int32)
  tokens = np.zeros((len(rows), rounded(max(int(lengths.max()), 1))), np.int32)
  for filled, row in zip(tokens, rows):
    filled[: row.size] = row
  return tokens, lengths


def as_tokens(prompt: Any, number: int) -> np.ndarray:
  """Returns the prompt of a row as an array of whole numbers.

  Raises:
    ValueError: it is a text or a single token, or has something else in it.
  """
  row = np.asarray(prompt)
  if row.dtype.kind in "US":
    raise Mistake(f"generate: the prompt of row {number} is text; give its tokens, which a tokenizer makes of it")
  if row.ndim != 1:
    what = f"the one token {row}" if row.ndim == 0 else f"an array of {row.ndim} axes"
    raise Mistake(f"generate: the prompt of row {number} is {what}; give a list of token sequences, e.g. [[1, 2, 3]]")
  if row.size and row.dtype.kind not in "iu":
    raise Mistake(f"generate: the prompt of row {number} has {row.dtype} in it; tokens are whole numbers")
  return row


def opened(
  model: nn.Module, context: Context | None, lengths: Int[np.ndarray, "b"], new: int, room: int, *, proposed: int = 0
) -> Context:
  """Returns a context that the caller may use up: a copy of the one given, or a new one.

  Raises:
    ValueError: it has no room for the tokens to read, `new` ones, and those that are `proposed` beyond.
  """
  if context is None:
    longest = int(lengths.max())
    check_room(model.longest, "model has max_len", longest, new, proposed)
    return start(model, len(lengths), max(longest + new + proposed, room))
  position, limit = np.asarray(context.state.position), np.asarray(context.room)
  # what a context has not read is the first token of a row here, or all there is
  tightest = int(np.argmin(limit - position - np.maximum(lengths, 1)))
  read = int(position[tightest]) + max(int(lengths[tightest]), 1)
  check_room(int(limit[tightest]), "context has room", read, new, proposed)
  return jax.tree.map(jnp.copy, context)


def check_room(limit: int | None, whose: str, prompt: int, new: int, proposed: int = 0) -> None:
  """Raises ValueError where `prompt`, `new` and `proposed` tokens exceed the limit, if there is one."""
  total = prompt + new + proposed
  if limit is not None and total > limit:
    left = limit - prompt - proposed
    fewer = f"ask for at most {left} new tokens or " if left > 0 else ""
    beyond = f", with {proposed} that a draft model proposes beyond," if proposed else ""
    raise Mistake(
      f"generate: {prompt} tokens of prompt and {new} new ones{beyond} are {total}, but the {whose}={limit}; "
      f"{fewer}shorten the prompt"
    )


def check_numbers(drawn: Drawn, before: int = 0) -> None:
  """Raises ValueError where `draw` met logits that are not numbers, after `before` tokens."""
  rows, columns = np.nonzero(np.asarray(drawn.tokens) < 0)
  if rows.size:
    raise Mistake(
      f"generate: row {rows[0]} has NaN logits at its new token {before + columns[0]}; its parameters are not finite, "
      "or it has outgrown a state that was made for fewer tokens"
    )
