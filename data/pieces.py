"""Rows that are a piece of one document each, from its start on: what generates images or sounds is trained on these.

The first input of a row is a fixed token, so that its first byte is predicted, too; short pieces are filled up with
that token, which is not scored. There is no `reset`: models whose parts reach across tokens of several rows, such as
U-nets, can read these rows.
"""

import dataclasses
import functools
from typing import ClassVar

import numpy as np

from data.base import Stored
from data.packing import PackedText
from data.pipeline import Batch


@dataclasses.dataclass(frozen=True)
class Pieces(Stored, PackedText):
  """Documents of bytes, each cut into rows of `length`."""

  START: ClassVar[int] = 0
  STREAM: ClassVar[str] = "pieces"

  def __post_init__(self) -> None:
    super().__post_init__()
    self.require("stateful", not self.stateful, "false: a row starts with its document")

  @functools.cached_property
  def row_starts(self) -> dict[str, np.ndarray]:
    """Returns for each split the document and the position where each row begins, "rows 2"."""
    return {
      split: np.concatenate([self._cuts(i, len(document.text)) for i, document in enumerate(documents)])
      for split, documents in self.splits.items()
    }

  def _cuts(self, document: int, size: int) -> np.ndarray:
    starts = np.arange(0, size, self.length)
    return np.stack([np.full(len(starts), document), starts], axis=1)

  @property
  def sizes(self) -> dict[str, int]:
    """Returns how many rows each split has."""
    return {split: len(starts) for split, starts in self.row_starts.items()}

  def take(self, split: str, numbers: np.ndarray) -> Batch:
    """Returns the rows of these numbers."""
    targets = np.full((len(numbers), self.length), self.START, np.int32)
    weights = np.zeros(targets.shape, np.float32)
    for row, (document, start) in enumerate(self.row_starts[split][numbers].tolist()):
      piece = np.frombuffer(self.splits[split][document].text[start : start + self.length], np.uint8)
      targets[row, : len(piece)], weights[row, : len(piece)] = piece, 1
    inputs = np.pad(targets[:, :-1], ((0, 0), (1, 0)), constant_values=self.START)
    return {"inputs": inputs, "targets": targets, "weights": weights}
