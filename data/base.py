"""What most tasks share: their constants, how they refuse a field, and epochs over rows that are stored."""

import abc
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from data import pipeline
from data.pipeline import Batch


class Base:
  """The constants of a task of tokens, of which each predicts the next, and the checks of a task's fields."""

  head: ClassVar[str] = "lm"
  loss: ClassVar[str] = "cross_entropy"
  metrics: ClassVar[tuple[str, ...]] = ("loss", "accuracy")
  features: ClassVar[Any] = None
  classes: ClassVar[Any] = None

  def require(self, field: str, allowed: bool, choices: str) -> None:
    """Raises the Mistake that names the field, its value and what it may be, unless it is allowed."""
    pipeline.require(type(self).__name__, field, getattr(self, field), allowed, choices)

  def require_all(self, *checks: tuple[str, bool, str]) -> None:
    """Calls `require` on each (field, whether it is allowed, choices)."""
    for check in checks:
      self.require(*check)


class Stored(Base, abc.ABC):
  """A task whose rows are known beforehand: each epoch visits them all once, in an order of its own."""

  STREAM: ClassVar[str]  # names the random orders
  batch: int
  seed: int

  @property
  @abc.abstractmethod
  def sizes(self) -> Mapping[str, int]:
    """Returns how many rows each split has."""

  @property
  def mixed(self) -> bool:
    """Returns whether evaluation reads the rows in another order than the files have."""
    return self.classes is not None

  @abc.abstractmethod
  def take(self, split: str, numbers: np.ndarray) -> Batch:
    """Returns the rows of these numbers."""

  def train(self, process_index: int = 0, process_count: int = 1) -> Iterator[Batch]:
    """Returns endless batches; each epoch visits every row once, in a new order."""
    size = self.sizes["train"]

    def rows(first: int, count: int) -> Batch:
      return self.take("train", pipeline.shuffled(self.seed, self.STREAM, first, count, size))

    return pipeline.training(rows, self.batch, process_index, process_count)

  def eval_sets(self, process_index: int = 0, process_count: int = 1) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns every split but 'train'.

    Rows that have answers of their own come in one fixed order, as files often have class after class, so that the
    first batches alone would be of one class; others come as they are.
    """

    def rows(split: str, first: int, count: int) -> Batch:
      if not self.mixed:
        return self.take(split, np.arange(first, first + count))
      return self.take(split, pipeline.shuffled(0, f"{self.STREAM}/{split}", first, count, self.sizes[split]))

    return {
      split: pipeline.InOrder(functools.partial(rows, split), size, self.batch, process_index, process_count)
      for split, size in self.sizes.items()
      if split != "train"
    }
