"""Text while it is generated: some tokens a call, decoded as they come."""

import os
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from inference import speculative
from inference.context import check_counts
from inference.generate import stream
from inference.sampling import Sampler, make_sampler, read_bias
from inference.speculative import PROPOSALS, Draft
from inference.tokenizer import Decoder, Tokenizer
from mistake import Mistake

# TextIO, or what the tests give; run-time checks of TextIO fail for a wrapper around bytes in memory
Stream = Any
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
    positions = [position for position in map(text.find, self._stop) if position >= 0]
    if self.ended or positions:
      shown = "" if self.ended else text[: min(positions)]
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
  tokenizer: Tokenizer,
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
  draft: Draft | None = None,
  num_speculative_tokens: int = PROPOSALS,
  out: Stream | None = None,
) -> str:
  """Writes the prompt and its continuation to `out` as it is generated; returns the continuation.

  Args:
    tokens: at most so many are drawn.
    stop: texts before which the continuation ends.
    draft, num_speculative_tokens: a cheaper model that proposes tokens; see `inference.speculative`.
    out: nothing is written if None.
  Raises:
    ValueError: as for `inference.stream` and `make_sampler`.
  """
  sampler = make_sampler(temperature, top_k, top_p, min_p, repetition_penalty)
  check_counts("generate", tokens=tokens)
  first = tokenizer.encode(prompt)
  settings: dict[str, Any] = {"sampler": sampler, "stop": encoded_stops(tokenizer, stop)}
  settings["logit_bias"] = known_only(tokenizer, model.vocab, logit_bias)
  settings |= {"draft": draft, "num_speculative_tokens": num_speculative_tokens}
  drawn = pieces(model, variables, first, max_new_tokens=tokens, rng=jax.random.key(seed), **settings)
  # the prompt may end inside of a character
  decoder, continuation = Decoder(tokenizer), Decoder(tokenizer, before=first)
  printed, answer = Stops(stop), Stops(stop)
  text, shown = "", decoder.push(first)
  try:
    for piece in drawn:
      text += answer.push(continuation.push(piece))
      show(out, printable(shown + printed.push(decoder.push(piece))))
      shown = ""
      if answer.ended:
        break
    show(out, printable(printed.push(decoder.push([], last=True), last=True)) + "\n")
  except BrokenPipeError:
    # nobody reads any longer, which is no mistake; what is left in the buffer must not fail at the end of the program
    if out is not None and out is sys.stdout:
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  return text + answer.push(continuation.push([], last=True), last=True)


def pieces(
  model: nn.Module,
  variables: Mapping[str, Any],
  prompt: np.ndarray,
  *,
  draft: Draft | None = None,
  num_speculative_tokens: int = PROPOSALS,
  **settings: Any,
) -> Iterator[np.ndarray]:
  """Yields the tokens that follow one prompt, a few at a time; the settings are those of `inference.stream`."""
  drawn: Iterator[Any]
  if draft is None:
    drawn = stream(model, variables, [prompt], **settings)
  else:
    both = (model, draft[0]), (variables, draft[1])
    drawn = speculative.pieces(*both, [prompt], num_speculative_tokens=num_speculative_tokens, **settings)
  for piece in drawn:
    yield np.asarray(piece.tokens[0, : piece.lengths[0]])


def check_settings(section: Any) -> None:
  """Raises ValueError where a config's generate section has settings that nothing can be drawn with."""
  make_sampler(**{key: section[key] for key in Sampler._fields if key in section})
  check_stops(section.get("stop", ()))
  read_bias(section.get("logit_bias", ()))


def check_stops(stop: Sequence[Any]) -> None:
  """Raises ValueError where one is empty or no text."""
  if wrong := [text for text in stop if not isinstance(text, str)]:
    raise Mistake(f"generate: stop has {wrong[0]!r}, which is no text; quote it, e.g. ('{wrong[0]}',)")
  if not all(stop):
    raise Mistake("generate: stop has an empty text, before which everything would end; leave it out")


def encoded_stops(tokenizer: Tokenizer, stop: Sequence[str]) -> list[list[int]]:
  """Returns the tokens of each stop text, and the token that ends texts.

  A text may come in other tokens than these, so whoever shows it looks for the stop texts as well.

  Raises:
    ValueError: one is empty or no text.
  """
  check_stops(stop)
  end = [] if tokenizer.end is None else [[tokenizer.end]]
  return end + [tokenizer.encode(text, begin=False).tolist() for text in stop]


def known_only(
  tokenizer: Tokenizer, vocab: int, logit_bias: Mapping[int, float | int] | None
) -> Mapping[int, float | int] | None:
  """Returns the biases, with -inf for tokens of a padded vocabulary that the tokenizer does not have."""
  unknown = dict.fromkeys(range(tokenizer.size, vocab), float("-inf"))
  return {**(logit_bias or {}), **unknown} or None


def show(out: Stream | None, text: str) -> None:
  """Writes the text at once, with question marks for what the encoding of `out`, such as ASCII, does not have."""
  if out is None:
    return
  try:
    out.write(text)
  except UnicodeEncodeError as error:
    out.write(text.encode(error.encoding, "replace").decode(error.encoding))
  out.flush()


def printable(text: str) -> str:
  """Returns the text with U+FFFD for what is no character and for controls and escapes, which a terminal would obey.

  Line ends and tabs stay, as do spaces of all widths, joiners and every other character.
  """
  return "".join("\ufffd" if char not in "\n\r\t" and unicodedata.category(char) in HIDDEN else char for char in text)
