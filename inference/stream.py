"""Text while it is generated: some tokens a call, decoded as they come."""

import codecs
import io
import os
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from inference.generate import check_numbers, check_room, run, start
from inference.sampling import Sampler, make_sampler
from mistake import Mistake

# controls, and the surrogates that stand for bytes which are no UTF-8
HIDDEN = ("Cc", "Cs")


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
  first = np.asarray(task.encode(prompt))
  # a character may be spread over several tokens, tokens over several calls, and the prompt may end inside of one
  decoder = codecs.getincrementaldecoder("utf-8")("replace")
  continuation = codecs.getincrementaldecoder("utf-8")("replace")
  text, shown = "", decode(task, first, decoder)
  try:
    for piece in stream(model, variables, first, tokens=tokens, sampler=sampler, seed=seed):
      text += decode(task, piece, continuation)
      show(out, printable(shown + decode(task, piece, decoder)))
      shown = ""
    show(out, decoder.decode(b"", final=True) + "\n")
  except BrokenPipeError:
    # nobody reads any longer, which is no mistake; what is left in the buffer must not fail at the end of the program
    if out is sys.stdout:
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  return text + continuation.decode(b"", final=True)


def decode(task: Any, tokens: np.ndarray, decoder: codecs.IncrementalDecoder) -> str:
  """The text of tokens; of a task whose tokens are bytes, as far as the characters are complete."""
  decoded = task.decode(tokens)
  return decoder.decode(decoded) if isinstance(decoded, bytes) else decoded


def show(out: TextIO | io.TextIOBase, text: str) -> None:
  """Writes the text at once, with question marks for what the encoding of `out`, such as ASCII, does not have."""
  try:
    out.write(text)
  except UnicodeEncodeError as error:
    out.write(text.encode(error.encoding, "replace").decode(error.encoding))
  out.flush()


def has_text(task: Any) -> bool:
  """Whether a task is language modelling of tokens that stand for text."""
  return task.head == "lm" and hasattr(task, "encode")


def printable(text: str) -> str:
  """The text with U+FFFD for what is no character and for controls and escapes, which a terminal would obey.

  Line ends and tabs stay, as do spaces of all widths, joiners and every other character.
  """
  return "".join("\ufffd" if char not in "\n\r\t" and unicodedata.category(char) in HIDDEN else char for char in text)
