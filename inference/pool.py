"""Continuous batching: requests join a batch of texts as rows become free, and leave it when they are done."""

import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Key

from inference.context import check_counts, put, start
from inference.decode import draw, make_stops, read, unstacked
from inference.generate import PREFILL_CHUNK, check_numbers, check_room, padded
from inference.sampling import Sampler, as_keys, make_bias, make_sampler


class Request(NamedTuple):
  """A prompt that waits or is being continued."""

  number: int
  prompt: list[int]
  max_new_tokens: int
  rng: Key[Array, ""]
  callback: Callable[[list[int]], Any] | None


class Finished(NamedTuple):
  """Holds the tokens that followed the prompt of a request."""

  tokens: list[int]
  logprobs: list[float]
  stopped: bool  # whether it ends in a stop sequence


class Pool:
  """A batch of `rows` texts, whose states and caches are kept in one place and updated in it.

  Each request's tokens are those of `generate` with its prompt alone and the key of its row, `rng=key[None]`, whenever
  it joins and whoever else is there.

  Args:
    rows: texts that are continued at once.
    room: tokens of prompt and continuation that a row can hold where the state grows.
    sampler, stop, logit_bias, prefill_chunk: of all requests, see `inference.stream`.
    chunk: tokens between two moments at which requests join and leave.
  Raises:
    ValueError: a size is below 1, the model has no room for so many tokens, or as for `inference.stream`.
  """

  def __init__(
    self,
    model: nn.Module,
    variables: Mapping[str, Any],
    *,
    rows: int = 8,
    room: int = 2048,
    sampler: Sampler | None = None,
    stop: Sequence[Sequence[int]] = (),
    logit_bias: Mapping[int, float | int] | None = None,
    chunk: int = 8,
    prefill_chunk: int = PREFILL_CHUNK,
  ):
    check_counts("pool", rows=rows, room=room, chunk=chunk, prefill_chunk=prefill_chunk)
    self._context = start(model, rows, room)
    self._model, self._room, self._chunk, self._prefill_chunk = model, room, chunk, prefill_chunk
    self._variables, self._apart = jax.device_put(variables), unstacked(model, variables)
    self._sampler = make_sampler(*(sampler or Sampler(temperature=0.0)))
    self._bias, self._stops = make_bias(logit_bias, model.vocab), make_stops(stop, model.vocab)
    self._keys = jax.random.split(jax.random.key(0), rows)
    self._waiting: deque[Request] = deque()
    self._running: list[Request | None] = [None] * rows
    self._drawn: list[Finished] = [Finished([], [], False)] * rows
    self._done: dict[int, Finished] = {}
    self._count = 0

  def __len__(self) -> int:
    """Returns the number of requests that are not done, or that `step` has not returned yet."""
    return self._unfinished() + len(self._done)

  def _unfinished(self) -> int:
    return len(self._waiting) + sum(request is not None for request in self._running)

  def add(
    self,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    rng: Key[Array, ""] | None = None,
    callback: Callable[[list[int]], Any] | None = None,
  ) -> int:
    """Adds a request, and returns its number.

    Args:
      rng: its key; by default made of key 0 and the number.
      callback: is called with its new tokens, a few at a time. What it raises, `step` and `run` raise when all requests
        have their tokens; the next call goes on, and returns what was done.
    Raises:
      ValueError: the prompt is empty, too long, or has a token that the model does not know.
    """
    check_counts("pool", max_new_tokens=max_new_tokens)
    padded([prompt], None, self._model.vocab)
    check_room(self._room, "pool has room", len(prompt), max_new_tokens)
    number, self._count = self._count, self._count + 1
    rng = jax.random.fold_in(jax.random.key(0), number) if rng is None else as_keys(rng)
    self._waiting.append(Request(number, list(prompt), max_new_tokens, rng, callback))
    return number

  def cancel(self, number: int) -> None:
    """Drops a request, whether it waits or is being continued; one that is done already is no matter."""
    self._waiting = deque(request for request in self._waiting if request.number != number)
    self._running = [None if request and request.number == number else request for request in self._running]

  def step(self) -> dict[int, Finished]:
    """Lets requests join the free rows, draws at most `chunk` tokens a row, and returns the requests that are done.

    Raises:
      ValueError: the parameters are not finite.
    """
    self._advance()
    done, self._done = self._done, {}
    return done

  def run(self) -> dict[int, Finished]:
    """Steps until all requests are done, and returns them by number."""
    while self._unfinished():
      self._advance()
    done, self._done = self._done, {}
    return done

  def _advance(self) -> None:
    """Draws the next tokens of each row and keeps them, before a callback can raise."""
    for row, request in enumerate(self._running):
      if request is None and self._waiting:
        self._join(row, self._waiting.popleft())
    left = [
      0 if request is None else request.max_new_tokens - len(drawn.tokens)
      for request, drawn in zip(self._running, self._drawn)
    ]
    limits = np.minimum(left, self._chunk).astype(np.int32)
    settings = {"size": self._chunk, "sampler": self._sampler, "alike": False}
    drawn, self._context = draw(
      self._model, self._apart, self._context, self._keys, limits, self._bias, self._stops, **settings
    )
    check_numbers(drawn)
    tokens, lengths, logprobs, stopped = map(np.asarray, drawn)
    calls: list[Callable[[], Any]] = []
    for row, request in enumerate(self._running):
      if request is None:
        continue
      new, old = tokens[row, : lengths[row]].tolist(), self._drawn[row]
      values = logprobs[row, : lengths[row]].tolist()
      self._drawn[row] = Finished(old.tokens + new, old.logprobs + values, bool(stopped[row]))
      if request.callback:
        calls.append(partial(request.callback, new))
      if stopped[row] or len(self._drawn[row].tokens) == request.max_new_tokens:
        self._done[request.number], self._running[row] = self._drawn[row], None
    with contextlib.ExitStack() as stack:
      # each is called, whatever those before it raise
      for call in reversed(calls):
        stack.callback(call)

  def _join(self, row: int, request: Request) -> None:
    """Reads a request's prompt alone, and puts its context into a row."""
    tokens, lengths = padded([request.prompt], None, self._model.vocab)
    one = start(self._model, 1, self._room)
    one = read(self._model, self._variables, one, tokens, lengths, chunk=self._prefill_chunk)
    self._context = put(self._context, row, one)
    self._keys = self._keys.at[row].set(request.rng)
    self._running[row], self._drawn[row] = request, Finished([], [], False)
