"""How likely a language model finds given texts: log p of a continuation after a context, and of a whole text."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from inference.text_model import TextModel
from inference.tokenizer import Tokenizer
from mistake import Mistake

# the shortest row that a program is compiled for
SHORTEST = 32


class Row(NamedTuple):
  """Tokens, of which those from `first` on are predicted; at least one stands before it."""

  tokens: np.ndarray
  first: int


class Score(NamedTuple):
  """The natural logarithm of a continuation's probability, and whether each of its tokens is the likeliest."""

  logprob: float
  greedy: bool


class Scorer:
  """Scores texts by a model, in batches of rows of like lengths, which are read piece by piece.

  Args:
    batch, chunk: rows, and tokens of each, whose logits are in memory at once.
  """

  def __init__(self, writer: TextModel, *, batch: int = 8, chunk: int = 256):
    for name, value in (("batch", batch), ("chunk", chunk)):
      if value < 1:
        raise Mistake(f"{name}={value}; give at least 1")
    self.writer, self._batch, self._chunk = writer, batch, chunk
    self._model, self._variables, self._tokenizer = writer.model, writer.variables, writer.tokenizer
    self._read = jax.jit(_reader(self._model))

  def continuations(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
    """Scores continuations, each after its context; of a context that the model has no room for, its end is read.

    A continuation that the model has no room for is read in windows, as a text.
    """
    return self._whole([pair(self._tokenizer, *texts) for texts in pairs])

  def texts(self, texts: Sequence[str]) -> list[float]:
    """Scores whole texts, after the token that begins texts; where there is none, the first token is not predicted.

    A text that the model has no room for is read in windows: each token is predicted once, in the last window with as
    much before it as there is room for.
    """
    return [score.logprob for score in self._whole([pair(self._tokenizer, "", text) for text in texts])]

  def _whole(self, rows: Sequence[Row]) -> list[Score]:
    """Returns the score of all that each row predicts, in as many windows as it takes."""
    windows = [list(self._windows(row)) for row in rows]
    scores = iter(self._scores([window for one in windows for window in one]))
    parts = [[next(scores) for _ in one] for one in windows]
    return [Score(float(sum(part.logprob for part in one)), all(part.greedy for part in one)) for one in parts]

  def _windows(self, row: Row) -> Iterator[Row]:
    size = self._model.longest or max(len(row.tokens), 1)
    for first in range(row.first, len(row.tokens), size):
      end = min(first + size, len(row.tokens))
      start = max(end - 1 - size, 0)
      yield Row(row.tokens[start:end], first - start)

  def _scores(self, rows: Sequence[Row]) -> list[Score]:
    found: dict[int, Score] = {}
    order = sorted(range(len(rows)), key=lambda number: -len(rows[number].tokens))
    for place in range(0, len(order), self._batch):
      numbers = order[place : place + self._batch]
      found |= zip(numbers, self._of_batch([rows[number] for number in numbers]))
    return [found[number] for number in range(len(rows))]

  def _of_batch(self, rows: list[Row]) -> Iterator[Score]:
    # a row without tokens to read has nothing that could be predicted
    sizes = np.array([len(row.tokens) - 1 for row in rows] + [0] * (self._batch - len(rows)))
    width = min(self._chunk, _power(max(int(sizes.max()), SHORTEST)))
    pieces = _power(-(-int(sizes.max()) // width))
    tokens = np.zeros((self._batch, pieces * width + 1), np.int32)
    for line, given in zip(tokens, rows):
      line[: len(given.tokens)] = given.tokens
    state, parts = self._model.init_state(self._batch, pieces * width), []
    for start in range(0, int(sizes.max()), width):
      lengths = np.clip(sizes - start, 0, width).astype(np.int32)
      *part, state = self._read(self._variables, tokens[:, start : start + width + 1], lengths, state)
      parts.append(jax.device_get(part))
    logprobs, hits = (np.concatenate(values, axis=1) for values in zip(*parts)) if parts else (tokens, tokens)
    for number, row in enumerate(rows):
      inside = slice(row.first - 1, len(row.tokens) - 1)
      yield Score(float(np.sum(logprobs[number, inside], dtype=np.float64)), bool(np.all(hits[number, inside])))


def pair(tokenizer: Tokenizer, context: str, continuation: str) -> Row:
  """Cuts the tokens of a text where its context ends; spaces at the context's end belong to what follows.

  So lm-evaluation-harness does: a space and the word after it are one token of most tokenizers.
  """
  bare = context.rstrip()
  context, continuation = bare, context[len(bare) :] + continuation
  if not context:
    before = next((token for token in (tokenizer.begin, tokenizer.end) if token is not None), None)
    prefix = [] if before is None else [before]
    return Row(np.array([*prefix, *tokenizer.encode(continuation, begin=False).tolist()], np.int32), 1)
  whole = np.asarray(tokenizer.encode(context + continuation), np.int32)
  return Row(whole, min(len(tokenizer.encode(context)), len(whole)))


def _reader(model: Any) -> Callable[..., tuple[jax.Array, jax.Array, Any]]:
  def read(variables: Any, tokens: jax.Array, lengths: jax.Array, state: Any) -> tuple[jax.Array, jax.Array, Any]:
    logits, state = model.apply(variables, tokens[:, :-1], state, lengths=lengths, method="prefill_all")
    logits, targets = logits.astype(jnp.float32), tokens[:, 1:]
    logprobs = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    return logprobs, jnp.argmax(logits, axis=-1) == targets, state

  return read


def _power(value: int) -> int:
  """Returns the least power of two that is not below."""
  return 1 << max(value - 1, 0).bit_length()
