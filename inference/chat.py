"""A conversation with a model on a terminal or through a pipe; its state is kept between turns."""

import contextlib
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from inference import saved, speculative
from inference.context import ENDLESS, Context, check_counts
from inference.generate import stream
from inference.sampling import make_sampler
from inference.speculative import PROPOSALS, Draft
from inference.text import Stops, Stream, encoded_stops, known_only, printable, show
from inference.tokenizer import Decoder, Tokenizer
from mistake import Mistake

HELP = "/reset starts anew, /save FILE and /load FILE keep the conversation, /quit ends; Ctrl-C stops a reply"
# tokens between two looks at whether the reply is to stop
CHUNK = 4


class Chat:
  """A conversation: what both sides have written is the context of the next reply, and is read once.

  Args:
    tokens: of a reply, at most.
    stop: texts before which a reply ends.
    draft, num_speculative_tokens: a cheaper model that proposes tokens; see `inference.speculative`.
    room: tokens that the conversation may have where the model's state grows; the model's `max_len` by default.
  Raises:
    ValueError: a setting does not fit.
  """

  def __init__(
    self,
    model: nn.Module,
    variables: Mapping[str, Any],
    tokenizer: Tokenizer,
    *,
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
    room: int | None = None,
  ):
    check_counts("chat", tokens=tokens)
    self.model, self.tokenizer, self.tokens, self.stop = model, tokenizer, tokens, stop
    self._variables, self._draft = jax.device_put(variables), draft
    sampler = make_sampler(temperature, top_k, top_p, min_p, repetition_penalty)
    self._ahead = 0
    if draft is not None:
      speculative.check(speculative.Pair(model, draft[0], sampler, num_speculative_tokens), tokens)
      self._ahead = num_speculative_tokens
    self._settings: dict[str, Any] = {
      "sampler": sampler,
      "stop": encoded_stops(tokenizer, stop),
      "logit_bias": known_only(tokenizer, model.vocab, logit_bias),
      "rng": jax.random.key(seed),
      "chunk": CHUNK,
      "room": room or model.longest or 0,
    }
    self.context: Context | None = None
    # that of the draft model, which has read the same
    self._drafted: Context | None = None

  def reply(self, text: str) -> Iterator[str]:
    """Yields the reply to a text as it is drawn. The conversation goes on after as much of it as was asked for.

    Raises:
      ValueError: the text is empty or the conversation has no room for it.
    """
    prompt = self.tokenizer.encode(text, begin=self.context is None)
    left = ENDLESS if self.model.longest is None else self._settings["room"]
    if self.context is not None:
      left = int(self.context.room[0]) - int(self.context.state.position[0]) - 1
    left -= self._ahead
    if len(prompt) + 1 > left:
      raise Mistake(f"chat: {len(prompt)} tokens do not fit the {max(left, 0)} that are left; /reset starts anew")
    tokens = min(self.tokens, left - len(prompt))
    before = self.context, self._drafted
    decoder, stops = Decoder(self.tokenizer, before=prompt), Stops(self.stop)
    try:
      for new in self._drawn(prompt, tokens):
        yield stops.push(decoder.push(new))
        if stops.ended:
          return
    except Mistake:
      # the piece that failed has used up the context of the one before it
      self.context, self._drafted = before
      raise
    yield stops.push(decoder.push([], last=True), last=True)

  def _drawn(self, prompt: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Yields the tokens of a reply, a few at a time, and keeps the contexts after them."""
    settings = {**self._settings, "max_new_tokens": tokens}
    if self._draft is None:
      for piece in stream(self.model, self._variables, [prompt], context=self.context, **settings):
        self.context = piece.context
        yield np.asarray(piece.tokens[0, : piece.lengths[0]])
      return
    both = (self.model, self._draft[0]), (self._variables, self._draft[1])
    settings |= {"num_speculative_tokens": self._ahead}
    contexts = None if self.context is None or self._drafted is None else (self.context, self._drafted)
    for proposed in speculative.pieces(*both, [prompt], contexts=contexts, **settings):
      self.context, self._drafted = proposed.contexts
      yield np.asarray(proposed.tokens[0, : proposed.lengths[0]])

  def command(self, line: str) -> str:
    """Obeys a line that starts with a slash, and returns what to say about it.

    Raises:
      ValueError: there is no such command, or a file does not fit.
    """
    name, _, file = line.partition(" ")
    if name == "/reset":
      self.context = self._drafted = None
      return "the conversation starts anew"
    if name in ("/save", "/load") and not file:
      raise Mistake(f"chat: {name} needs a file, e.g. {name} talk.npz")
    if name == "/save":
      if self.context is None:
        raise Mistake(f"chat: {line!r}: there is nothing to save before a reply; write something first")
      saved.save(file, self.model, self._variables, self.context)
      return f"saved to {Path(file)}"
    if name == "/load":
      if self._draft is not None:
        raise Mistake(f"chat: {line!r}: the file is not of the draft model's state; leave --draft out to go on with it")
      context = saved.restore(file, self.model, self._variables)
      if len(context.last) != 1:
        raise Mistake(f"chat: {line!r}: the file holds {len(context.last)} texts; give one that /save has written")
      self.context = context
      return f"went back to {Path(file)}"
    if name == "/help":
      return HELP
    raise Mistake(f"chat: {line!r} cannot be done; {HELP}")


@contextlib.contextmanager
def as_chat() -> Iterator[None]:
  """Lets the mistakes that generation names in this block be those of a chat, which is what was asked for."""
  try:
    yield
  except Mistake as error:
    error.args = (re.sub("^generate:", "chat:", str(error)),)
    raise


def talk(chat: Chat, lines: Stream, out: Stream) -> None:
  """Answers the lines of a terminal or a pipe until they end or one of them is /quit; a pipe's are shown before."""
  terminal = lines.isatty()
  if terminal:
    show(out, f"{HELP}\n")
  while (line := _next(lines, terminal)) is not None:
    if line.strip() == "/quit":
      return
    try:
      if line.startswith("/"):
        print(chat.command(line.strip()), file=sys.stderr)
      elif line:
        if not terminal:
          show(out, f"> {printable(line)}\n")
        with as_chat():
          _answer(chat, line, out)
    except (Mistake, OSError) as error:
      # nothing was read of it, and the conversation can go on
      print(f"error: {error}", file=sys.stderr)


def _next(lines: Stream, terminal: bool) -> str | None:
  """Returns the next line without its end; None after the last one."""
  while True:
    try:
      with _interrupts(signal.default_int_handler):
        line = input("> ") + "\n" if terminal else lines.readline()
    except EOFError:
      return None
    except KeyboardInterrupt:
      print(file=sys.stderr)
      continue
    return line.removesuffix("\n") if line else None


def _answer(chat: Chat, line: str, out: Stream) -> None:
  """Shows the reply to a line, up to where Ctrl-C stops it.

  The signal sets a flag: an exception could come when the old state is used up and the new one not kept yet.
  """
  asked: list[int] = []
  with _interrupts(lambda number, frame: asked.append(number)):
    for text in chat.reply(f"{line}\n"):
      show(out, printable(text))
      if asked:
        break
  show(out, "\n")


@contextlib.contextmanager
def _interrupts(handler: Any) -> Iterator[None]:
  """Handles Ctrl-C by `handler` meanwhile."""
  before = signal.signal(signal.SIGINT, handler)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, before)
