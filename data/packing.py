"""Documents of bytes, packed end to end: shuffled rows, or one contiguous stream for each row of the batch.

A split is held in memory as one array of bytes and a flag at each document's first. Each epoch packs the documents in a
new order and cuts at a new offset. Rows score every next byte except the first of another document, and `reset` marks
the document starts.
"""

import abc
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from data import draws, pipeline
from data.base import Base
from data.pipeline import Batch
from mistake import Mistake

BYTES = 256


class Document(NamedTuple):
  """A name for messages and checksums, and the text."""

  name: str
  text: bytes


class Packed(Protocol):
  """Documents end to end, in memory or in files."""

  def rows(self, begins: np.ndarray, length: int) -> Batch:
    """Returns rows of `length` inputs from these places, each with its next token as the target."""
    ...


class Stream(NamedTuple):
  """Documents end to end."""

  tokens: np.ndarray  # uint8
  starts: np.ndarray  # bool, at each document's first token

  def rows(self, begins: np.ndarray, length: int) -> Batch:
    """Returns the rows that begin at these positions; see `Packed.rows`."""
    index = begins[:, None] + np.arange(length + 1)
    return batch_of(self.tokens[index], self.starts[index])


def stream(texts: Sequence[bytes]) -> Stream:
  """Packs texts in the order given."""
  starts = np.zeros(sum(map(len, texts)), bool)
  starts[np.cumsum([0] + [len(text) for text in texts[:-1]])] = True
  return Stream(np.frombuffer(b"".join(texts), np.uint8), starts)


def batch_of(tokens: np.ndarray, starts: np.ndarray) -> Batch:
  """Makes the batch of rows that have a token more than inputs; nothing predicts a document's first token."""
  tokens = tokens.astype(np.int32)
  weights = (~starts[:, 1:]).astype(np.float32)
  # contiguous copies, so that no batch keeps the wider array alive
  inputs, targets = np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:])
  return {"inputs": inputs, "targets": targets, "weights": weights, "reset": np.ascontiguousarray(starts[:, :-1])}


class Epochs:
  """Endless rows of `length` from one split: row r belongs to epoch r // (rows an epoch has).

  Shuffled: the rows of an epoch in random order. Stateful: row r is the next piece of lane r % batch, a lane being one
  of `batch` equal parts of the epoch, and `reset` is set where a lane starts anew.
  """

  UNIT = "bytes"

  def __init__(self, texts: Sequence[bytes], length: int, batch: int, seed: int, stateful: bool):
    self.texts = texts
    self._lay_out(sum(map(len, texts)), length, batch, seed, stateful)

  def _lay_out(self, size: int, length: int, batch: int, seed: int, stateful: bool) -> None:
    self.size, self.length, self.batch, self.seed, self.stateful = size, length, batch, seed, stateful
    # one token is only a target, and up to `length - 1` are skipped to move the cuts from epoch to epoch
    usable = size - length
    self.steps = (usable // batch - 1) // length if stateful else 0
    self.rows = self.steps * batch if stateful else (usable - 1) // length + 1
    if usable < 1 or self.rows < 1:
      need = batch * (length + 1) + length if stateful else length + 1
      kind = "stateful batch" if stateful else "row"
      fix = f"lower data.length={length} or data.batch={batch}, or use more text"
      raise Mistake(f"the training text has {size} {self.UNIT}, but a {kind} needs {need}: {fix}")
    # the present epoch and, where a batch reaches across, the next
    self.epoch = functools.lru_cache(maxsize=2)(self._epoch)

  def packed(self, index: int) -> Packed:
    """Returns the tokens of one epoch, whose documents are shuffled."""
    order = draws.permutation(self.seed, "packing/documents", index, len(self.texts))
    return stream([self.texts[i] for i in order])

  def _epoch(self, index: int) -> tuple[Packed, int, np.ndarray]:
    """Returns one epoch's tokens, its offset and the order of its rows."""
    offset = int(draws.below(draws.bits(self.seed, "packing/offset", index, 1, 1), self.length)[0, 0])
    rows = draws.permutation(self.seed, "packing/rows", index, self.rows) if not self.stateful else np.empty(0, int)
    return self.packed(index), offset, rows

  def __call__(self, first: int, count: int) -> Batch:
    """Rows first … first + count - 1."""
    parts = []
    while count:
      index, row = divmod(first, self.rows)
      part = min(count, self.rows - row)
      parts.append(self._rows(index, np.arange(row, row + part)))
      first, count = first + part, count - part
    return parts[0] if len(parts) == 1 else {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}

  def _rows(self, index: int, rows: np.ndarray) -> Batch:
    packed, offset, order = self.epoch(index)
    if not self.stateful:
      last = self.size - self.length - 1
      # the last row of an epoch overlaps the one before it rather than reach beyond the end
      return packed.rows(np.minimum(offset + order[rows] * self.length, last), self.length)
    lane, step = rows % self.batch, rows // self.batch
    width = (self.size - self.length) // self.batch
    batch = packed.rows(offset + lane * width + step * self.length, self.length)
    batch["reset"][:, 0] |= step == 0
    return batch


@dataclasses.dataclass(frozen=True)
class PackedText(Base, abc.ABC):
  """A byte-level language-model task over documents.

  Attributes:
    length: bytes of a training row.
    stateful: row i of each batch continues row i of the last one, for training that carries the recurrent state
      (truncated backpropagation through time).
    eval_length: bytes of an evaluation row, 0 for `length`. Each row starts without context, so longer ones score
      better; config.eval.chunk keeps their memory small.
    vocab: tokens that the model has; bytes are the first 256 of them.
  """

  batch: int = 8
  length: int = 256
  seed: int = 0
  stateful: bool = False
  eval_length: int = 0
  vocab: int = BYTES

  metrics: ClassVar[tuple[str, ...]] = ("loss", "bits_per_byte", "accuracy")

  def __post_init__(self) -> None:
    self.require_all(
      ("batch", self.batch >= 1, "at least 1"),
      ("length", self.length >= 1, "at least 1"),
      ("eval_length", self.eval_length >= 0, "at least 1, or 0 for data.length"),
      ("vocab", self.vocab >= BYTES, f"at least {BYTES}, as text is read as bytes"),
    )

  @abc.abstractmethod
  def read(self) -> Mapping[str, Sequence[Document]]:
    """Reads the documents of each split, none empty: 'train', which a task may lack, and at least one more."""

  @functools.cached_property
  def splits(self) -> Mapping[str, Sequence[Document]]:
    """Reads the documents of each split by one call of `read`.

    Raises:
      Mistake: a split has nothing to predict, since no document has a second byte.
    """
    splits = self.read()
    for split, documents in splits.items():
      if all(len(document.text) < 2 for document in documents):
        raise Mistake(
          f"the {split} split of task {type(self).__name__!r} has nothing to predict: a document's first byte follows "
          f"nothing, and none of its {len(documents)} documents has a second"
        )
    return splits

  def train(self, process_index: int = 0, process_count: int = 1) -> Iterator[Batch]:
    """Returns endless batches of packed rows.

    Raises:
      ValueError: the text is missing, unreadable or too short for one row, or all of it is for evaluation.
    """
    if "train" not in self.splits:
      raise Mistake(f"task {type(self).__name__!r} has nothing to train on: all of its text is for evaluation")
    texts = [d.text for d in self.splits["train"]]
    epochs = Epochs(texts, self.length, self.batch, self.seed, self.stateful)
    return pipeline.training(epochs, self.batch, process_index, process_count)

  def eval_sets(self, process_index: int = 0, process_count: int = 1) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns every split but 'train': its documents in order, in consecutive rows, each byte predicted once."""
    return {
      split: self._in_order(stream([d.text for d in documents]), process_index, process_count)
      for split, documents in self.splits.items()
      if split != "train"
    }

  def _in_order(self, packed: Stream, process_index: int, process_count: int) -> Callable[[], Iterator[Batch]]:
    length = self.eval_length or self.length
    rows = -(-(len(packed.tokens) - 1) // length)
    # the tail of the last row: document starts, which nothing is to predict
    pad = rows * length + 1 - len(packed.tokens)
    packed = Stream(np.pad(packed.tokens, (0, pad)), np.pad(packed.starts, (0, pad), constant_values=True))

    def take(first: int, count: int) -> Batch:
      return packed.rows(np.arange(first, first + count) * length, length)

    return pipeline.InOrder(take, rows, self.batch, process_index, process_count)

  def describe(self) -> dict[str, Any]:
    """Returns checksum and sizes of the whole; bytes, documents and unigram entropy (bits a byte) of each split."""
    facts: dict[str, Any] = {"task": type(self).__name__}
    checksum = hashlib.sha256()
    for split, documents in self.splits.items():
      counts = np.zeros(256, np.int64)
      for document in documents:
        # names are left out: they hold the folder the text happens to be in
        text = document.text
        checksum.update(f"{split} {len(text)} ".encode())
        checksum.update(text)
        counts += np.bincount(np.frombuffer(text, np.uint8), minlength=256)
      p = counts[counts > 0] / counts.sum()
      facts[split] = {
        "documents": len(documents),
        "bytes": int(counts.sum()),
        "unigram_bits_per_byte": round(float(-(p * np.log2(p)).sum()), 4),
      }
    total = {"documents": 0, "bytes": 0}
    for split in self.splits:
      total = {key: total[key] + facts[split][key] for key in total}
    return facts | total | {"sha256": checksum.hexdigest()}

  @staticmethod
  def encode(text: str) -> np.ndarray:
    """Turns text into its UTF-8 bytes, int32; other bytes stand in the text as Python's surrogate escapes.

    Raises:
      Mistake: the text has another half of a surrogate pair, which is no character.
    """
    try:
      return np.frombuffer(text.encode(errors="surrogateescape"), np.uint8).astype(np.int32)
    except UnicodeEncodeError as error:
      half = ascii(text[error.start])
      raise Mistake(f"the text has {half} at {error.start}, half of a surrogate pair, which is no character") from None

  @staticmethod
  def decode(tokens: Sequence[int] | np.ndarray) -> bytes:
    """Turns tokens into bytes; a character may be several, so decode to text incrementally or with errors='replace'."""
    return np.asarray(tokens).astype(np.uint8).tobytes()
