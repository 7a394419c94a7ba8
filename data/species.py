"""Whose genome is this? Windows of several genomes, classified by species (HyenaDNA, Nguyen et al. 2023, sec. 4.4).

arXiv:2306.15794; five species there, or great apes in Mamba's fig. 5 (arXiv:2312.00752). A folder has one folder of
FASTA files for each species. Training windows are drawn afresh: a species at random, then a place in its training
records. Whole records (chromosomes) are held out by the md5 of species and name until they are the share of bases, so
that no window of one part overlaps another's. Tokens are the letters' bytes. Windows with more than half of no base are
drawn again, at most eight times.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from data import draws, fasta, pipeline
from data.base import Base
from data.packing import Document
from data.pipeline import Batch
from data.text_file import distinct, walk
from mistake import Mistake

EVAL_SEED = 0
TRIES = 8


@dataclasses.dataclass(frozen=True)
class Species(Base):
  """Classify windows by species, one label a window.

  Attributes:
    length: bases of a window.
    dir: a folder of folders, one a species.
    labels: how many species there are; 0 to count the folders.
    validation: share of each species' bases in records that are held out; at least one record is.
    eval_rows: windows of the validation set, the same for every seed.
  """

  batch: int = 32
  length: int = 1024
  seed: int = 0
  dir: str = ""
  labels: int = 0
  validation: float = 0.1
  eval_rows: int = 1024

  head: ClassVar[str] = "classifier"
  vocab: ClassVar[int] = 256
  stateful: ClassVar[bool] = False

  def __post_init__(self) -> None:
    self.require_all(
      ("batch", self.batch >= 1, "at least 1"),
      ("length", self.length >= 1, "at least 1"),
      ("labels", self.labels == 0 or self.labels >= 2, "at least 2, or 0 to count the folders"),
      ("eval_rows", self.eval_rows >= 1, "at least 1"),
      ("validation", 0 < self.validation < 1, "a share between 0 and 1"),
    )

  @property
  def classes(self) -> int:
    """Returns how many species there are."""
    return self.labels or len(self.names)

  @functools.cached_property
  def names(self) -> list[str]:
    """Returns the species, in alphabetical order."""
    self.require("dir", bool(self.dir), "a folder with one folder of FASTA files a species")
    root = pipeline.folder("dir", self.dir)
    names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if len(names) < 2 or len(names) != (self.labels or len(names)):
      wanted = self.labels or "at least two"
      raise Mistake(f"data.dir={self.dir!r} has {len(names)} folders; give one for each of {wanted} species")
    return names

  @functools.cached_property
  def splits(self) -> dict[str, list[list[np.ndarray]]]:
    """Reads for each split and each species its records that are as long as a window."""
    splits: dict[str, list[list[np.ndarray]]] = {"train": [], "validation": []}
    for name in self.names:
      folder = pipeline.folder("dir", self.dir) / name
      paths = distinct(path for path in walk(folder) if path.name.lower().removesuffix(".gz").endswith(fasta.ENDINGS))
      records = [record for path in paths for record in fasta.records(path) if len(record.text) >= self.length]
      if len(records) < 2:
        raise Mistake(f"{str(folder)!r} has {len(records)} records of data.length={self.length}; two are needed")
      held = self._held(name, records)
      for split, inside in (("train", False), ("validation", True)):
        part = [np.frombuffer(record.text, np.uint8) for record in records if (record.name in held) == inside]
        splits[split].append(part)
    return splits

  def _held(self, species: str, records: Sequence[Document]) -> set[str]:
    """Returns the names of the records that are held out, all but one at most."""
    total, bases, held = sum(len(record.text) for record in records), 0, set()
    key = lambda record: hashlib.md5(f"{species} {record.name}".encode(), usedforsecurity=False).digest()
    for record in sorted(records, key=key)[:-1]:
      if bases < self.validation * total:
        held.add(record.name)
        bases += len(record.text)
    return held

  def take(self, split: str, seed: int, first: int, count: int) -> Batch:
    """Returns windows first … first + count - 1 of a stream."""
    u = draws.bits(seed, f"species/{split}", first, count, 1 + 2 * TRIES)
    targets = draws.below(u[:, 0], self.classes)
    inputs = np.stack([self._window(self.splits[split][label], row[1:]) for label, row in zip(targets.tolist(), u)])
    return {"inputs": inputs, "targets": targets.astype(np.int32), "weights": np.ones(count, np.float32)}

  def _window(self, records: Sequence[np.ndarray], u: np.ndarray) -> np.ndarray:
    """Returns a window of a record, which is drawn in proportion to the windows that it has."""
    ends = np.cumsum([len(record) - self.length + 1 for record in records])
    for high, low in u.reshape(TRIES, 2).tolist():
      index = (high << 32 | low) * int(ends[-1]) >> 64
      which = int(np.searchsorted(ends, index, side="right"))
      start = index - (int(ends[which - 1]) if which else 0)
      window = records[which][start : start + self.length].astype(np.int32)
      if 2 * np.isin(window, np.frombuffer(b"ACGT", np.uint8)).sum() >= self.length:
        break
    return window

  def train(self, process_index: int = 0, process_count: int = 1) -> Iterator[Batch]:
    """Returns endless batches of windows."""
    rows = lambda first, count: self.take("train", self.seed, first, count)
    return pipeline.training(rows, self.batch, process_index, process_count)

  def eval_sets(self, process_index: int = 0, process_count: int = 1) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns 'validation'."""
    rows = lambda first, count: self.take("validation", EVAL_SEED, first, count)
    return {"validation": pipeline.InOrder(rows, self.eval_rows, self.batch, process_index, process_count)}

  def describe(self) -> dict[str, Any]:
    """Returns the fields but for the folder, bases and records of each species and split, and the checksum of all."""
    checksum = hashlib.sha256()
    facts: dict[str, Any] = {key: value for key, value in dataclasses.asdict(self).items() if key != "dir"}
    for split, species in self.splits.items():
      for records in species:
        for record in records:
          checksum.update(record.data)
      bases = {name: sum(map(len, records)) for name, records in zip(self.names, species)}
      facts[split] = bases
    return {"task": "Species", **facts, "species": self.names, "sha256": checksum.hexdigest()}
