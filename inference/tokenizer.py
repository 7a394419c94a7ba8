"""Text to token numbers and back: by a run's own tokenizer file, or by the task, whose tokens are bytes."""

import codecs
import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mistake import Mistake

JSON, SETTINGS, MODEL = "tokenizer.json", "tokenizer_config.json", "*.model"
# vocabularies of models are padded up to a multiple of at most this
PADDED = 512


@runtime_checkable
class Tokenizer(Protocol):
  """The tokens of a text.

  Attributes:
    size: how many different ones there are.
    end: the token that ends a text, if there is one.
    begin: the token that stands before every text, if there is one.
  """

  size: int
  end: int | None
  begin: int | None

  def encode(self, text: str, *, begin: bool = True) -> np.ndarray:
    """Returns the tokens of a text; with `begin`, after those that stand before every text."""
    ...

  def decode(self, tokens: np.ndarray) -> str | bytes:
    """Returns the text of tokens, which may end inside a character if it is bytes."""
    ...


class OfTask:
  """The tokens of a task of text."""

  def __init__(self, task: Any):
    self._task, self.size = task, task.vocab
    self.end: int | None = None
    self.begin: int | None = None

  def encode(self, text: str, *, begin: bool = True) -> np.ndarray:
    """Returns the tokens of a text."""
    return np.asarray(self._task.encode(as_text(text)))

  def decode(self, tokens: np.ndarray) -> str | bytes:
    """Returns the text, or the bytes, of tokens."""
    return self._task.decode(tokens)


class OfTokenizers:
  """The tokens of a `tokenizer.json`, through the library `tokenizers`."""

  def __init__(self, path: Path):
    library = imported("tokenizers", path)
    try:
      self._tokenizer = library.Tokenizer.from_file(str(path))
    # the library raises Exception itself
    except Exception as error:
      raise unreadable(path, error) from None
    self.size = max(self._tokenizer.get_vocab(True).values(), default=-1) + 1
    settings = path.with_name(SETTINGS)
    try:
      end = json.loads(settings.read_text(encoding="utf-8")).get("eos_token") if settings.is_file() else None
    except (ValueError, AttributeError) as error:
      raise unreadable(settings, error) from None
    end = end.get("content") if isinstance(end, dict) else end
    self.end = None if end is None else self._tokenizer.token_to_id(end)
    self.begin = next(iter(self.encode("").tolist()), None)

  def encode(self, text: str, *, begin: bool = True) -> np.ndarray:
    """Returns the tokens of a text."""
    return np.asarray(self._tokenizer.encode(whole(text), add_special_tokens=begin).ids, np.int32)

  def decode(self, tokens: np.ndarray) -> str:
    """Returns the text of tokens, of which special ones have none."""
    return self._tokenizer.decode(np.asarray(tokens).tolist(), skip_special_tokens=True)


class OfSentencePiece:
  """The tokens of a SentencePiece model, through the library `sentencepiece`."""

  def __init__(self, path: Path):
    library = imported("sentencepiece", path)
    try:
      self._processor = library.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
      raise unreadable(path, error) from None
    self.size = self._processor.get_piece_size()
    self.end = self._processor.eos_id() if self._processor.eos_id() >= 0 else None
    self.begin = self._processor.bos_id() if self._processor.bos_id() >= 0 else None

  def encode(self, text: str, *, begin: bool = True) -> np.ndarray:
    """Returns the tokens of a text."""
    first = [self.begin] if begin and self.begin is not None else []
    return np.asarray(first + self._processor.encode(whole(text)), np.int32)

  def decode(self, tokens: np.ndarray) -> str:
    """Returns the text of tokens."""
    return self._processor.decode(np.asarray(tokens).tolist())


def as_text(text: Any) -> str:
  """Returns the text; what is none, as a token, raises ValueError."""
  if not isinstance(text, str):
    what = f"{text!r} is no text but {type(text).__name__}"
    raise Mistake(f"generate: {what}; give a str, or tokens to inference.generate")
  return text


def whole(text: Any) -> str:
  """Returns the text.

  Raises:
    ValueError: it is none; or holds a byte that is no UTF-8 or half of a surrogate pair, of which only bytes can be
      made.
  """
  try:
    as_text(text).encode()
  except UnicodeEncodeError as error:
    raise Mistake(
      f"the text has {ascii(text[error.start])} at {error.start}, which is no character; leave it out"
    ) from None
  return text


def unreadable(path: Path, error: Exception) -> Mistake:
  """Returns the error for a file that is not what its name says."""
  return Mistake(f"tokenizer {path} cannot be read: {error}; take the model's own, or move this file away")


class NotInstalled(Mistake):
  """A tokenizer file is there, but not the library that reads it."""


def imported(library: str, path: Path) -> Any:
  """Returns a library that is needed for tokenizer files alone.

  Raises:
    NotInstalled: it is not installed.
  """
  try:
    return importlib.import_module(library)
  except ImportError:
    raise NotInstalled(
      f"{path} needs the package {library!r}, which is not installed; EXTRAS=text ./dev setup installs it"
    ) from None


def file(folder: Path) -> Path | None:
  """Returns the tokenizer file in a folder, `tokenizer.json` or else the one `*.model`; None if there is none.

  Raises:
    ValueError: there are several.
  """
  if (folder / JSON).is_file():
    return folder / JSON
  models = sorted(folder.glob(MODEL))
  if len(models) > 1:
    raise Mistake(f"{folder} has {len(models)} tokenizers, {', '.join(path.name for path in models)}; leave one")
  return models[0] if models else None


def find(folder: str | Path | None, task: Any, vocab: int | None) -> Tokenizer:
  """Returns the tokenizer in a folder, `tokenizer.json` or `*.model`; that of the task if there is none.

  Args:
    task: None for folders of released models, which have no task.

  Raises:
    ValueError: it cannot be read or does not match the model's vocabulary, or there is none and the task has no text.
  """
  path = None if folder is None else file(Path(folder).expanduser())
  if path is None and has_file(task):
    path = file(Path(task.tokenizer))
  if path is not None:
    return checked(open_file(path), path, vocab)
  if task is None:
    raise Mistake(f"{folder} has no tokenizer, {JSON} or {MODEL}")
  if not has_text(task):
    raise Mistake(
      f"generate: task {type(task).__name__} has no text; use a language modelling task such as 'bytes', or put the "
      f"model's {JSON} or {MODEL} into the run's folder"
    )
  return OfTask(task)


def open_file(path: Path) -> Tokenizer:
  """Opens a tokenizer's file, `tokenizer.json` or another of that library, or a SentencePiece model.

  Raises:
    Mistake: it cannot be read, or its library is not installed.
  """
  return (OfSentencePiece if path.suffix == ".model" else OfTokenizers)(path)


def checked(tokenizer: Tokenizer, path: Path, vocab: int | None) -> Tokenizer:
  """Returns the tokenizer.

  Raises:
    ValueError: it has tokens that the model does not know, or many fewer.
  """
  most = -(-tokenizer.size // PADDED) * PADDED
  if vocab is None or not tokenizer.size <= vocab <= most:
    raise Mistake(
      f"tokenizer {path} has {tokenizer.size} tokens, but the model has vocab={vocab}; it must have as many, or up to "
      f"{most} if its vocabulary is padded: use the tokenizer that the model was trained with"
    )
  return tokenizer


def has_text(task: Any) -> bool:
  """Returns whether a task is language modelling of tokens that stand for text."""
  return task.head == "lm" and hasattr(task, "encode")


def has_file(task: Any) -> bool:
  """Returns whether a task's tokens are those of a tokenizer's file."""
  return hasattr(task, "tokenizer")


class Decoder:
  """The text of tokens that come in pieces, as far as its characters are complete.

  Args:
    before: tokens that come first, whose text is not wanted.
  """

  def __init__(self, tokenizer: Tokenizer, before: Sequence[int] | np.ndarray = ()):
    self._decode: Callable[[np.ndarray], Any] = tokenizer.decode
    self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
    # the text of tokens depends on those just before: their spaces, and bytes of one character
    self._tokens = [int(token) for token in before]
    self._start, self._shown = 0, len(self._tokens)

  def push(self, tokens: Sequence[int] | np.ndarray, *, last: bool = False) -> str:
    """Returns the text that more tokens complete; with `last`, all of it."""
    piece = self._decode(np.asarray(tokens, np.int32))
    if isinstance(piece, bytes):
      return self._bytes.decode(piece, final=last)
    self._tokens += [int(token) for token in tokens]
    text = lambda end: self._decode(np.asarray(self._tokens[self._start : end], np.int32))
    shown, now = text(self._shown), text(None)
    if now.endswith("\ufffd") and not last:
      return ""
    self._start, self._shown = self._shown, len(self._tokens)
    return now[len(shown) :]
