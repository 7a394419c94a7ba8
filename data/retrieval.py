"""Retrieval of the Long Range Arena: does one paper of AAN cite the other? (Tay et al. 2021, arXiv:2011.04006.)

Pairs of documents as bytes, each read by itself; the head `dual_encoder` compares them. The official files are
new_aan_pairs.train.tsv, .eval.tsv and .test.tsv: label, two ids and two texts a line, tabs between them (147,086,
18,090 and 17,437 pairs). They are read where they lie, a line at a time, so that they need not fit into memory.
"""

import dataclasses
import functools
import hashlib
import mmap
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np

from data import pipeline
from data.pipeline import Batch
from mistake import Mistake

FILES = {
  name: f"new_aan_pairs.{part}.tsv" for name, part in (("train", "train"), ("validation", "eval"), ("test", "test"))
}
FOLDER = "tsv_data"
FIELDS = 5


class Lines(NamedTuple):
  """A file of lines, and where each begins and ends."""

  data: mmap.mmap
  starts: np.ndarray
  ends: np.ndarray


@dataclasses.dataclass(frozen=True)
class Retrieval:
  """Classify pairs of texts, one label a pair; inputs are "b 2 t".

  Attributes:
    length: bytes of a document, whose end is cut.
    dir: a folder with the official files, or with tsv_data/ that holds them.
  """

  batch: int = 32
  length: int = 4000
  seed: int = 0
  dir: str = ""

  head: ClassVar[str] = "dual_encoder"
  loss: ClassVar[str] = "cross_entropy"
  metrics: ClassVar[tuple[str, ...]] = ("loss", "accuracy")
  vocab: ClassVar[int] = 256
  features: ClassVar[None] = None
  classes: ClassVar[int] = 2
  stateful: ClassVar[bool] = False

  def __post_init__(self) -> None:
    for field, allowed in (("batch", self.batch >= 1), ("length", self.length >= 1)):
      pipeline.require("Retrieval", field, getattr(self, field), allowed, "at least 1")

  @functools.cached_property
  def splits(self) -> dict[str, Lines]:
    """Opens the lines of each file."""
    pipeline.require("Retrieval", "dir", self.dir, bool(self.dir), f"a folder with {list(FILES.values())}")
    root = pipeline.folder("dir", self.dir)
    path = root / FOLDER if (root / FOLDER).is_dir() else root
    return {split: opened(path / file) for split, file in FILES.items()}

  def take(self, split: str, numbers: np.ndarray) -> Batch:
    """Returns the pairs at `places` of a split.

    Raises:
      Mistake: a line has not five fields, a label that is neither 0 nor 1, or an empty text; it is named.
    """
    lines, rows = self.splits[split], len(numbers)
    inputs, lengths = np.zeros((rows, 2, self.length), np.int32), np.zeros((rows, 2), np.int32)
    targets = np.zeros(rows, np.int32)
    for row, number in enumerate(numbers.tolist()):
      fields = lines.data[lines.starts[number] : lines.ends[number]].rstrip(b"\r").split(b"\t")
      if len(fields) != FIELDS or fields[0] not in (b"0", b"1", b"0.0", b"1.0") or not (fields[3] and fields[4]):
        what = f"{len(fields)} of {FIELDS} fields, label {fields[0][:20]!r}, or an empty text"
        raise Mistake(f"line {number + 1} of {FILES[split]!r} is no pair: {what}")
      targets[row] = fields[0][:1] == b"1"
      for side, text in enumerate(fields[3:]):
        n = min(len(text), self.length)
        inputs[row, side, :n], lengths[row, side] = np.frombuffer(text, np.uint8, n), n
    return {"inputs": inputs, "targets": targets, "weights": np.ones(rows, np.float32), "lengths": lengths}

  def train(self, process_index: int = 0, process_count: int = 1) -> Iterator[Batch]:
    """Returns endless batches; each epoch visits every pair once, in a new order."""
    size = len(self.splits["train"].starts)
    order = lambda first, count: pipeline.shuffled(self.seed, "retrieval", first, count, size)
    return pipeline.training(
      lambda first, count: self.take("train", order(first, count)), self.batch, process_index, process_count
    )

  def eval_sets(self, process_index: int = 0, process_count: int = 1) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns 'validation' and 'test'."""

    def make(split: str, first: int, count: int) -> Batch:
      return self.take(split, np.arange(first, first + count))

    return {
      split: pipeline.InOrder(
        functools.partial(make, split), len(self.splits[split].starts), self.batch, process_index, process_count
      )
      for split in ("validation", "test")
    }

  def describe(self) -> dict[str, Any]:
    """Returns the fields but for the folder, the pairs of each split, and the checksum of all files."""
    checksum = hashlib.sha256()
    for lines in self.splits.values():
      checksum.update(lines.data)
    pairs = {split: len(lines.starts) for split, lines in self.splits.items()}
    return (
      {"task": "Retrieval", "batch": self.batch, "length": self.length, "seed": self.seed}
      | pairs
      | {"sha256": checksum.hexdigest()}
    )


def opened(path: pathlib.Path) -> Lines:
  """Opens a file of pairs.

  Raises:
    Mistake: there is none, or it is empty; the message says where it is published.
  """
  source = "lra_release.gz of github.com/google-research/long-range-arena has it"
  try:
    with path.open("rb") as file:
      data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  except (OSError, ValueError) as error:
    raise Mistake(f"cannot read {str(path)!r}: {error}; {source}") from None
  breaks = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
  ends = breaks if len(breaks) and breaks[-1] == len(data) - 1 else np.append(breaks, len(data))
  return Lines(data, np.concatenate([[0], ends[:-1] + 1]), ends)
