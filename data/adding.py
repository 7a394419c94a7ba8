"""The adding problem: the sum of the two numbers that are marked (Hochreiter & Schmidhuber 1997; Le et al. 2015).

A token is a number, uniform on (0, 1), and a mark: 1 at one place of the first half and at one of the second, both
uniform, 0 elsewhere (arXiv:1504.00941, sec. 4.1). The target is the sum of both numbers; always saying 1 has a mean
squared error of 1/6 = 0.1667, the usual baseline.
"""

import dataclasses
from typing import ClassVar

import numpy as np

from data import draws
from data.generated import Sampled
from data.pipeline import Batch


@dataclasses.dataclass(frozen=True)
class Adding(Sampled):
  """Predict one number for each row of (number, mark).

  Attributes:
    length: tokens of a row; published up to 400 (arXiv:1504.00941), 750 and more in later work.
  Raises:
    Mistake: a row has no two halves.
  """

  length: int = 200
  vocab: ClassVar[None] = None  # type: ignore[misc, assignment]

  head: ClassVar[str] = "regression"
  loss: ClassVar[str] = "mse"
  metrics: ClassVar[tuple[str, ...]] = ("loss", "mse", "mae")
  features: ClassVar[int] = 2  # type: ignore[assignment]

  def __post_init__(self) -> None:
    self.require_sizes()
    self.require("length", self.length >= 2, "at least 2, one for each half")

  def sample(self, seed: int, stream: str, first: int, rows: int) -> Batch:
    """Returns `rows` rows of one stream."""
    half = self.length // 2
    u = draws.bits(seed, f"adding/{stream}", first, rows, self.length + 2)
    numbers, marks = draws.unit(u[:, 2:]), np.zeros((rows, self.length))
    positions = np.stack([draws.below(u[:, 0], half), half + draws.below(u[:, 1], self.length - half)], axis=1)
    np.put_along_axis(marks, positions, 1, axis=1)
    return {
      "inputs": np.stack([numbers, marks], axis=-1).astype(np.float32),
      "targets": np.take_along_axis(numbers, positions, axis=1).sum(axis=1, keepdims=True).astype(np.float32),
      "weights": np.ones(rows, np.float32),
    }
