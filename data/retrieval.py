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
from typing import Any, ClassVar, NamedTuple

import numpy as np

from data import original, pipeline
from data.base import Stored
from data.pipeline import Batch
from mistake import Mistake

FILES = {
  name: f"new_aan_pairs.{part}.tsv" for name, part in (("train", "train"), ("validation", "eval"), ("test", "test"))
}
FOLDER = "tsv_data"
SOURCE = "storage.googleapis.com/long-range-arena/lra_release.gz, the folder tsv_data, 7.7 GB unpacked with all tasks"
FIELDS = 5


class Lines(NamedTuple):
  """A file of lines, and where each begins and ends."""

  data: mmap.mmap
  starts: np.ndarray
  ends: np.ndarray


@dataclasses.dataclass(frozen=True)
class Retrieval(Stored):
  """Classify pairs of texts, one label a pair; inputs are "b 2 t".

  Attributes:
    length: bytes of a document, whose end is cut; `describe` counts the documents that are longer.
    dir: a folder with the official files, or with tsv_data/ that holds them.
  """

  batch: int = 32
  length: int = 4000
  seed: int = 0
  dir: str = ""

  STREAM: ClassVar[str] = "retrieval"
  head: ClassVar[str] = "dual_encoder"
  vocab: ClassVar[int] = 256
  classes: ClassVar[int] = 2
  stateful: ClassVar[bool] = False

  def __post_init__(self) -> None:
    self.require_all(("batch", self.batch >= 1, "at least 1"), ("length", self.length >= 1, "at least 1"))

  @functools.cached_property
  def splits(self) -> dict[str, Lines]:
    """Opens the lines of each file."""
    files = dict.fromkeys(FILES.values(), original.File())
    self.require("dir", bool(self.dir), f"a folder with {original.listed(files)}; get them from {SOURCE}")
    root = pipeline.folder("dir", self.dir)
    where = f"data.dir={self.dir!r}, with its folder {FOLDER!r},"
    path = original.find(where, (root / FOLDER, root), files, SOURCE)
    return {split: opened(path / file) for split, file in FILES.items()}

  @functools.cached_property
  def sizes(self) -> dict[str, int]:
    """Returns how many pairs each split has."""
    return {split: len(lines.starts) for split, lines in self.splits.items()}

  def take(self, split: str, numbers: np.ndarray) -> Batch:
    """Returns the pairs of these numbers in a split.

    Raises:
      Mistake: a line has not five fields, a label that is neither 0 nor 1, or an empty text; it is named.
    """
    rows = len(numbers)
    inputs, lengths = np.zeros((rows, 2, self.length), np.int32), np.zeros((rows, 2), np.int32)
    targets = np.zeros(rows, np.int32)
    for row, number in enumerate(numbers.tolist()):
      targets[row], texts = self.pair(split, number)
      for side, text in enumerate(texts):
        n = min(len(text), self.length)
        inputs[row, side, :n], lengths[row, side] = np.frombuffer(text, np.uint8, n), n
    return {"inputs": inputs, "targets": targets, "weights": np.ones(rows, np.float32), "lengths": lengths}

  def pair(self, split: str, number: int) -> tuple[int, list[bytes]]:
    """Returns the label and the two whole texts of a line.

    Raises:
      Mistake: see `take`.
    """
    lines = self.splits[split]
    fields = lines.data[lines.starts[number] : lines.ends[number]].rstrip(b"\r").split(b"\t")
    if len(fields) != FIELDS or fields[0] not in (b"0", b"1", b"0.0", b"1.0") or not (fields[3] and fields[4]):
      what = f"{len(fields)} of {FIELDS} fields, label {fields[0][:20]!r}, or an empty text"
      raise Mistake(f"line {number + 1} of {FILES[split]!r} is no pair: {what}")
    return int(fields[0][:1] == b"1"), fields[3:]

  @functools.cached_property
  def cut(self) -> int:
    """Counts the documents that lose their end."""
    texts = (text for split, size in self.sizes.items() for i in range(size) for text in self.pair(split, i)[1])
    return sum(len(text) > self.length for text in texts)

  @property
  def notice(self) -> str:
    """Returns what a run says at its start: how much of the data is left out."""
    of = f"of {2 * sum(self.sizes.values()):,} documents are longer than data.length={self.length}"
    return f"{self.cut:,} {of} bytes and lose their end" if self.cut else ""

  def describe(self) -> dict[str, Any]:
    """Returns the fields but for the folder, pairs of each split, documents in all and cut ones, and a checksum."""
    checksum = hashlib.sha256()
    for lines in self.splits.values():
      checksum.update(lines.data)
    facts = {"task": "Retrieval", "batch": self.batch, "length": self.length, "seed": self.seed}
    facts |= self.sizes | {"documents": 2 * sum(self.sizes.values()), "cut": self.cut}
    return facts | {"sha256": checksum.hexdigest()}


def opened(path: pathlib.Path) -> Lines:
  """Opens a file of pairs.

  Raises:
    Mistake: there is none, or it is empty; the message says where it is published.
  """
  try:
    with path.open("rb") as file:
      data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  except (OSError, ValueError) as error:
    raise Mistake(f"cannot read {str(path)!r}: {error}; {original.File()}; get it from {SOURCE}") from None
  breaks = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
  ends = breaks if len(breaks) and breaks[-1] == len(data) - 1 else np.append(breaks, len(data))
  return Lines(data, np.concatenate([[0], ends[:-1] + 1]), ends)
