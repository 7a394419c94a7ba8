"""The base of generated tasks: rows are drawn afresh for training and fixed for evaluation, and none is on disk."""

import abc
import bisect
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from data import pipeline
from data.base import Base
from data.pipeline import Batch

# evaluation sets are the same for every data.seed, so that runs of several seeds are compared on the same rows
EVAL_SEED = 0
# tokens of an evaluation batch: short rows are batched up to the first, long ones halved above the second
FEW_TOKENS, MANY_TOKENS, FEW_ROWS = 2**16, 2**23, 8
# rows of a training set that are made together
TOGETHER = 128


@dataclasses.dataclass(frozen=True)
class Generated(Base, abc.ABC):
  """A language-model task whose row r is a function of (seed, r).

  Attributes:
    length: tokens of a training row, all included.
    eval_rows: rows of each evaluation set.
  """

  batch: int = 64
  length: int = 256
  seed: int = 0
  vocab: int = 16
  eval_rows: int = 512

  stateful: ClassVar[bool] = False

  @abc.abstractmethod
  def training_rows(self, first: int, rows: int) -> Batch:
    """Returns rows first … first + rows - 1 of the endless training stream."""

  @abc.abstractmethod
  def validation_rows(self, first: int, rows: int) -> Batch:
    """Returns rows first … first + rows - 1 of the fixed validation set."""

  def train(self, process_index: int = 0, process_count: int = 1) -> Iterator[Batch]:
    """Returns endless batches of `training_rows`."""
    return pipeline.training(self.training_rows, self.batch, process_index, process_count)

  def eval_sets(self, process_index: int = 0, process_count: int = 1) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns one set, 'validation', of `eval_rows` rows."""
    return {
      "validation": pipeline.InOrder(self.validation_rows, self.eval_rows, self.batch, process_index, process_count)
    }

  def describe(self) -> dict[str, Any]:
    """Returns the task's fields, which with the seed determine every row."""
    return {"task": type(self).__name__, **dataclasses.asdict(self)}

  def require_sizes(self) -> None:
    """Checks what every generated task needs."""
    self.require("batch", self.batch >= 1, "at least 1")
    self.require("eval_rows", self.eval_rows >= 1, "at least 1")


@dataclasses.dataclass(frozen=True)
class Sampled(Generated):
  """A generated task whose training and validation rows differ in their seed and stream alone."""

  @abc.abstractmethod
  def sample(self, seed: int, stream: str, first: int, rows: int) -> Batch:
    """Returns rows first … first + rows - 1 of one stream."""

  def training_rows(self, first: int, rows: int) -> Batch:
    """Returns rows of the stream 'train'."""
    return self.sample(self.seed, "train", first, rows)

  def validation_rows(self, first: int, rows: int) -> Batch:
    """Returns rows of the stream 'validation', the same for every seed."""
    return self.sample(EVAL_SEED, "validation", first, rows)


def eval_batch(batch: int, length: int, rows: int) -> int:
  """Returns the rows of an evaluation batch: memory is bounded at any length, and up to 8 devices still divide it."""
  while batch * length > MANY_TOKENS and batch % 2 == 0 and batch > FEW_ROWS:
    batch //= 2
  while 2 * batch * length <= FEW_TOKENS and 2 * batch <= rows:
    batch *= 2
  return batch


def length_sets(
  make: Callable[[Any, int, int], Batch],
  sets: dict[str, tuple[Any, int]],
  task: Generated,
  budget: int,
  index: int,
  count: int,
) -> dict[str, Callable[[], Iterator[Batch]]]:
  """Returns evaluation sets by name, from (what `make` needs, length): whole batches, `budget` tokens."""
  out: dict[str, Callable[[], Iterator[Batch]]] = {}
  for name, (what, length) in sets.items():
    batch = eval_batch(task.batch, length, task.eval_rows)
    rows = max(1, min(task.eval_rows, budget // length) // batch) * batch
    out[name] = pipeline.InOrder(functools.partial(make, what), rows, batch, index, count)
  return out


def whole(make: Callable[[int, int], Batch], rows: int) -> Batch:
  """Makes all `rows` rows of a training set for memory, in parts that bound what making them takes."""
  parts = [make(start, min(TOGETHER, rows - start)) for start in range(0, rows, TOGETHER)]
  return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def stage_at(stages: Sequence[Sequence[int]], step: int) -> int:
  """Returns the index of the last stage whose first number, its first step, is at most `step`."""
  return bisect.bisect_right([row[0] for row in stages], step) - 1


def packed(make: Callable[[int, int], Batch], first: int, count: int, length: int, piece: int, *, reset: bool) -> Batch:
  """Makes rows first … first + count - 1, each of length / piece short sequences; `reset` marks their starts."""
  many = length // piece
  batch = {key: x.reshape(count, length) for key, x in make(first * many, count * many).items()}
  if reset:
    batch["reset"] = np.zeros((count, length), bool)
    batch["reset"][:, ::piece] = True
  return batch


def stages_fit(stages: Sequence[Sequence[int]], columns: int) -> bool:
  """Returns whether all rows have `columns` integers and their first steps start at 0 and grow."""
  starts = [row[0] for row in stages]
  return all(len(row) == columns for row in stages) and starts[:1] in ([], [0]) and starts == sorted(set(starts))
