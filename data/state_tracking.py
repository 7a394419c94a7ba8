"""The base of state tracking tasks: questions of random sizes, asked within and beyond the sizes of training.

A row is a question of n tokens, n uniform among the sizes the task has in a range, padded to the end of the range; the
answer, a token too, is to be predicted at the question's last token. Sizes count what a model reads: those of
Beck et al. 2024 (arXiv:2405.04517, App. D.2; its `experiments/`) count the answer as well, so that theirs of 3 … 40 is
ours of 2 … 39.
"""

import abc
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from data import draws
from data.generated import EVAL_SEED, Generated, length_sets
from data.pipeline import Batch

SCORES = ("last", "all")


@dataclasses.dataclass(frozen=True)
class StateTracking(Generated):
  """A task is how its questions are drawn and what they are worth after each token.

  Attributes:
    length: size of the longest training question.
    shortest: size of the shortest one.
    score: what training scores: 'last' (the published protocol) or 'all' (the value so far, wherever there is one).
      Evaluation scores the last alone.
    eval_sizes: rows of (smallest, largest size), one evaluation set 'length_SMALLEST_LARGEST' each;
      without any, 'validation' has the sizes of training.
  """

  batch: int = 256
  length: int = 39
  eval_rows: int = 1024
  shortest: int = 2
  score: str = "last"
  eval_sizes: tuple[tuple[int, int], ...] = ((2, 39), (40, 255))

  @abc.abstractmethod
  def sizes(self, low: int, high: int) -> np.ndarray:
    """Returns the sizes in low … high that questions of the task can have."""

  @abc.abstractmethod
  def numbers(self, width: int) -> int:
    """Returns how many random numbers a question of up to `width` tokens takes."""

  @abc.abstractmethod
  def questions(self, u: np.ndarray, sizes: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes questions of the random numbers u, uint32 `rows draws`.

    Returns:
      The tokens, `rows width`, arbitrary past a row's size; and the answer at each token, 0 for none.
    """

  def require_range(self) -> None:
    """Checks the fields above."""
    self.require_sizes()
    self.require("score", self.score in SCORES, f"choose from {SCORES}")
    fits = 1 <= self.shortest <= self.length and len(self.sizes(self.shortest, self.length)) > 0
    self.require("shortest", fits, f"1 … data.length={self.length}, with a size of this task between them")
    fits = all(len(row) == 2 and 1 <= row[0] <= row[1] and len(self.sizes(*row)) for row in self.eval_sizes)
    self.require("eval_sizes", fits, "rows (smallest, largest) with a size of this task each")

  def training_rows(self, first: int, rows: int) -> Batch:
    """Returns rows of the endless training stream; see `Generated.training_rows`."""
    return self.sample((self.shortest, self.length), self.seed, "train", self.score, first, rows)

  def validation_rows(self, first: int, rows: int) -> Batch:
    """Returns validation rows of the training sizes; see `Generated.validation_rows`."""
    return self.evaluation_rows((self.shortest, self.length), first, rows)

  def evaluation_rows(self, sizes: tuple[int, int], first: int, rows: int) -> Batch:
    """Returns rows of the fixed evaluation set of one range of sizes."""
    return self.sample(sizes, EVAL_SEED, f"validation/{sizes[0]}/{sizes[1]}", "last", first, rows)

  def eval_sets(self, process_index: int = 0, process_count: int = 1) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns a set 'length_SMALLEST_LARGEST' for each of `eval_sizes`, or 'validation' of the training sizes."""
    sets = {f"length_{low}_{high}": ((low, high), high) for low, high in self.eval_sizes}
    if not sets:
      return super().eval_sets(process_index, process_count)
    budget = self.eval_rows * max(high for _, high in self.eval_sizes)
    return length_sets(self.evaluation_rows, sets, self, budget, process_index, process_count)

  def sample(self, span: tuple[int, int], seed: int, stream: str, score: str, first: int, rows: int) -> Batch:
    """Returns `rows` rows of one stream and one range of sizes."""
    width, name = span[1], type(self).__name__
    u = draws.bits(seed, f"{name}/{stream}", first, rows, 1 + self.numbers(width))
    choices = self.sizes(*span)
    sizes = choices[draws.below(u[:, 0], len(choices))].astype(np.int32)
    tokens, answers = self.questions(u[:, 1:], sizes, width)
    position = np.arange(width)
    scored = (position == sizes[:, None] - 1) if score == "last" else (position < sizes[:, None]) & (answers > 0)
    return {
      "inputs": np.where(position < sizes[:, None], tokens, 0).astype(np.int32),
      "targets": np.where(scored, answers, 0).astype(np.int32),
      "weights": scored.astype(np.float32),
      "lengths": sizes,
    }
