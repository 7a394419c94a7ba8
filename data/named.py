"""Data sets by name: sequences of data/known_sets.py, with everything that data/arrays.py does for them."""

import dataclasses
import functools
from typing import ClassVar

from data import pipeline
from data.array_checks import check
from data.arrays import LONGER, Arrays
from data.known_sets import KNOWN, load, needs
from data.sequences import Sequences


@dataclasses.dataclass(frozen=True)
class Named(Arrays):
  """Classify the sequences of a set; its own test part is the test, `validation` of its training part is held out.

  With validation=0 none is, and the test part is the only evaluation set.

  Attributes:
    dataset: a name of data/known_sets.py.
    dir: a folder with the set's files, or with the set's folder that holds them.
    length: steps of a row; 0 for the longest sequence there is, which reads the set as soon as the task is made.
  """

  dataset: str = "cifar10_subset_grey"

  # what the set itself says
  files: ClassVar[str] = ""  # type: ignore[misc]
  predict: ClassVar[str] = "label"  # type: ignore[misc]
  inputs: ClassVar[str] = ""  # type: ignore[misc]
  targets: ClassVar[str] = ""  # type: ignore[misc]
  offsets: ClassVar[str] = ""  # type: ignore[misc]
  lengths: ClassVar[str] = ""  # type: ignore[misc]
  times: ClassVar[str] = ""  # type: ignore[misc]
  groups: ClassVar[str] = ""  # type: ignore[misc]
  split: ClassVar[str] = ""  # type: ignore[misc]
  sequence: ClassVar[str] = ""  # type: ignore[misc]
  pattern: ClassVar[str] = ""  # type: ignore[misc]
  layout: ClassVar[str] = "steps"  # type: ignore[misc]
  horizon: ClassVar[int] = 1  # type: ignore[misc]
  ahead: ClassVar[str] = "last"  # type: ignore[misc]
  from_last: ClassVar[bool] = False  # type: ignore[misc]
  unit: ClassVar[float]  # type: ignore[misc]
  gap: ClassVar[float] = 0.0  # type: ignore[misc]
  tokens: ClassVar[int]  # type: ignore[misc]
  channels: ClassVar[int]  # type: ignore[misc]
  labels: ClassVar[int]  # type: ignore[misc]

  def __post_init__(self) -> None:
    for field, allowed, choices in (
      ("dataset", self.dataset in KNOWN, f"choose from {list(KNOWN)}"),
      ("batch", self.batch >= 1, "at least 1"),
      ("longer", self.longer in LONGER, f"choose from {LONGER}"),
      ("validation", 0 <= self.validation < 1, "a share below 1; 0 if there is a test split"),
      ("test", 0 <= self.test < 1 - self.validation, "a share below 1 - data.validation"),
      ("length", self.length >= 0, "at least 1, or 0 for the longest sequence"),
    ):
      self.require(field, allowed, choices)
    known = KNOWN[self.dataset]
    for field in ("tokens", "channels", "labels", "unit"):
      object.__setattr__(self, field, getattr(known, field))
    if not self.length:
      object.__setattr__(self, "length", self._read_length())

  @property
  def source(self) -> str:
    """Returns how errors name where the sequences come from."""
    return f"data.dataset={self.dataset!r}"

  @functools.cached_property
  def data(self) -> Sequences:  # type: ignore[override]
    """Reads and checks all sequences."""
    self.require("dir", bool(self.dir), needs(self.dataset))
    data = load(self.dataset, pipeline.folder("dir", self.dir))
    check(self, data)
    return data
