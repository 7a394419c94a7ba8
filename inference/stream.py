"""Text while it is generated: some tokens a call, decoded as they come."""

import codecs
import io
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from inference.generate import check_numbers, check_room, run, start
from inference.sampling import Sampler, make_sampler
from mistake import Mistake


def stream(
  model: nn.Module,
  variables: Mapping[str, Any],
  prompt: np.ndarray,
  *,
  tokens: int,
  sampler: Sampler,
  seed: int = 0,
  chunk: int = 16,
) -> Iterator[np.ndarray]:
  """Yields the `tokens` that follow `prompt`, at most `chunk` at a time: what one call of `generate` gives.

  Args:
    prompt: token numbers of one sequence.
    chunk: tokens a compiled call; small shows the text sooner, large costs less.
  Raises:
    ValueError: an empty prompt, `tokens` below 1, or more of both than the model's `max_len` allows.
  """
  if len(prompt) == 0:
    raise Mistake("generate: the prompt has no tokens; give some text to start from, e.g. --prompt 'def '")
  if tokens < 1:
    raise Mistake(f"generate: tokens={tokens}; give at least 1")
  check_room(model, len(prompt), tokens)
  state = start(model, 1, len(prompt) + tokens)
  last = jnp.asarray(prompt, jnp.int32)[None]
  size = min(chunk, tokens)
  for done in range(0, tokens, size):
    count = min(size, tokens - done)
    lengths = jnp.full(1, last.shape[1], jnp.int32)
    new, state = run(model, variables, last, lengths, state, jax.random.key(seed), count, size=size, sampler=sampler)
    check_numbers(new)
    last = new[:, count - 1 : count]
    yield np.asarray(new[0, :count])


def write(
  model: nn.Module,
  variables: Mapping[str, Any],
  task: Any,
  *,
  prompt: str,
  tokens: int,
  temperature: float | int = 1.0,
  top_k: int = 0,
  top_p: float | int = 1.0,
  seed: int = 0,
  out: TextIO | io.TextIOBase | None = None,
) -> str:
  """Writes the prompt and its continuation to `out` (standard output) as it is generated; returns the continuation.

  Raises:
    ValueError: the task is no language modelling of text, or as for `stream` and `make_sampler`.
  """
  sampler = make_sampler(temperature, top_k, top_p)
  if not has_text(task):
    raise Mistake(f"generate: task {type(task).__name__} has no text; use a language modelling task such as 'bytes'")
  out = sys.stdout if out is None else out
  # a character may be spread over several tokens, and tokens over several calls
  decoder = codecs.getincrementaldecoder("utf-8")("replace")
  pieces = stream(model, variables, np.asarray(task.encode(prompt)), tokens=tokens, sampler=sampler, seed=seed)
  text = ""
  for i, piece in enumerate(pieces):
    decoded = task.decode(piece)
    new = decoder.decode(decoded) if isinstance(decoded, bytes) else decoded
    out.write(printable(prompt + new if i == 0 else new))
    out.flush()
    text += new
  rest = decoder.decode(b"", final=True)
  out.write(rest + "\n")
  out.flush()
  return text + rest


def has_text(task: Any) -> bool:
  """Whether a task is language modelling of tokens that stand for text."""
  return task.head == "lm" and hasattr(task, "encode")


def printable(text: str) -> str:
  """The text without what would move a terminal's cursor, ring its bell or change its colours."""
  return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)
