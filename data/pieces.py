"""Rows that are a piece of one document each, from its start on: what generates images or sounds is trained on these.

The first input of a row is a fixed token, so that its first byte is predicted, too; short pieces are filled up with
that token, which is not scored. There is no `reset`: models whose parts reach across tokens of several rows, such as
U-nets, can read these rows.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np

from data import pipeline
from data.packing import PackedText
from data.pipeline import Batch


@dataclasses.dataclass(frozen=True)
class Pieces(PackedText, abc.ABC):
  """Documents of bytes, each cut into rows of `length`."""

  START: ClassVar[int] = 0

  def __post_init__(self) -> None:
    super().__post_init__()
    name = type(self).__name__
    pipeline.require(name, "stateful", self.stateful, not self.stateful, "false: a row starts with its document")

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

  def take(self, split: str, which: np.ndarray) -> Batch:
    """Returns the rows of these numbers."""
    targets = np.full((len(which), self.length), self.START, np.int32)
    weights = np.zeros(targets.shape, np.float32)
    for row, (document, start) in enumerate(self.row_starts[split][which].tolist()):
      piece = np.frombuffer(self.splits[split][document].text[start : start + self.length], np.uint8)
      targets[row, : len(piece)], weights[row, : len(piece)] = piece, 1
    inputs = np.pad(targets[:, :-1], ((0, 0), (1, 0)), constant_values=self.START)
    return {"inputs": inputs, "targets": targets, "weights": weights}

  def train(self, process_index: int = 0, process_count: int = 1) -> Iterator[Batch]:
    """Returns endless batches; each epoch visits every row once, in a new order."""
    size = len(self.row_starts["train"])

    def rows(first: int, count: int) -> Batch:
      return self.take("train", pipeline.shuffled(self.seed, "pieces", first, count, size))

    return pipeline.training(rows, self.batch, process_index, process_count)

  def eval_sets(self, process_index: int = 0, process_count: int = 1) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns every split but 'train', its rows in order."""

    def make(split: str, first: int, count: int) -> Batch:
      return self.take(split, np.arange(first, first + count))

    return {
      split: pipeline.InOrder(functools.partial(make, split), len(rows), self.batch, process_index, process_count)
      for split, rows in self.row_starts.items()
      if split != "train"
    }
