"""Text while it is generated: some tokens a call, decoded as they come."""

import codecs
import io
import os
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

import flax.linen as nn
import jax
import numpy as np

from inference.generate import stream
from inference.sampling import make_sampler
from mistake import Mistake

# controls, and the surrogates that stand for bytes which are no UTF-8
HIDDEN = ("Cc", "Cs")


class Stops:
  """Cuts a text that comes in pieces before the first of some strings.

  Attributes:
    ended: whether one of the strings has come.
  """

  def __init__(self, stop: Sequence[str]):
    self._stop, self._held, self.ended = stop, "", False

  def push(self, text: str, *, last: bool = False) -> str:
    """Returns what can be shown after one more piece: all but the string, and but what may yet become one."""
    text = self._held + text
    self._held = ""
    found = [place for place in map(text.find, self._stop) if place >= 0]
    if self.ended or found:
      shown = "" if self.ended else text[: min(found)]
      self.ended = True
      return shown
    if not last:
      lengths = [n for word in self._stop for n in range(1, len(word)) if text.endswith(word[:n])]
      cut = len(text) - max(lengths, default=0)
      text, self._held = text[:cut], text[cut:]
    return text


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
  min_p: float | int = 0.0,
  repetition_penalty: float | int = 1.0,
  stop: Sequence[str] = (),
  logit_bias: Mapping[int, float | int] | None = None,
  seed: int = 0,
  out: TextIO | io.TextIOBase | None = None,
) -> str:
  """Writes the prompt and its continuation to `out` (standard output) as it is generated; returns the continuation.

  Args:
    tokens: at most so many are drawn.
    stop: texts before which the continuation ends.
  Raises:
    ValueError: the task is no language modelling of text, or as for `inference.stream` and `make_sampler`.
  """
  sampler = make_sampler(temperature, top_k, top_p, min_p, repetition_penalty)
  if not has_text(task):
    raise Mistake(f"generate: task {type(task).__name__} has no text; use a language modelling task such as 'bytes'")
  if tokens < 1:
    raise Mistake(f"generate: tokens={tokens}; give at least 1")
  out = sys.stdout if out is None else out
  first = np.asarray(task.encode(prompt))
  settings = {"sampler": sampler, "stop": encoded_stops(task, stop), "logit_bias": logit_bias}
  drawn = pieces(model, variables, first, max_new_tokens=tokens, rng=jax.random.key(seed), **settings)
  # a character may be spread over several tokens, tokens over several calls, and the prompt may end inside of one
  decoder = codecs.getincrementaldecoder("utf-8")("replace")
  continuation = codecs.getincrementaldecoder("utf-8")("replace")
  seen, kept = Stops(stop), Stops(stop)
  text, shown = "", decode(task, first, decoder)
  try:
    for piece in drawn:
      text += kept.push(decode(task, piece, continuation))
      show(out, printable(shown + seen.push(decode(task, piece, decoder))))
      shown = ""
      if kept.ended:
        break
    show(out, printable(seen.push(decoder.decode(b"", final=True), last=True)) + "\n")
  except BrokenPipeError:
    # nobody reads any longer, which is no mistake; what is left in the buffer must not fail at the end of the program
    if out is sys.stdout:
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  return text + kept.push(continuation.decode(b"", final=True), last=True)


def pieces(model: nn.Module, variables: Mapping[str, Any], prompt: np.ndarray, **settings: Any) -> Iterator[np.ndarray]:
  """Yields the tokens that follow one prompt, a few at a time; the settings are those of `inference.stream`."""
  for piece in stream(model, variables, [prompt], **settings):
    yield np.asarray(piece.tokens[0, : piece.lengths[0]])


def encoded_stops(task: Any, stop: Sequence[str]) -> list[list[int]]:
  """Returns the tokens of each stop text.

  Raises:
    ValueError: one is empty.
  """
  if not all(stop):
    raise Mistake("generate: stop has an empty text, before which everything would end; leave it out")
  return [np.asarray(task.encode(text)).tolist() for text in stop]


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
