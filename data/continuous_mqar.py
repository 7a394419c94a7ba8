"""Associative recall of vectors: keys and values are fixed random vectors (Zoology's `stacked_mqar.py`, 2025).

A row is `pairs` tokens, each a key's vector beside its value's, `passes` times over in new orders, then each key once
with zeros for its value, in random order. At those the value is asked, by its number: the head scores all values there
are. Keys and values of a row are distinct, drawn from `values` of either; their vectors have independent entries of
variance 1 / size and are the same in all rows and for all seeds.

Departs: rows are fresh every step; the vectors are random, where theirs are given from outside.
"""

import dataclasses
from typing import ClassVar

import numpy as np

from data import draws
from data.generated import EVAL_SEED, Sampled
from data.pipeline import Batch


@dataclasses.dataclass(frozen=True)
class ContinuousMQAR(Sampled):
  """Recall vectors: inputs are features, targets the numbers of values.

  Attributes:
    values: how many keys, and as many values, there are vectors for.
    size: of a vector; an input has twice as many features.
    pairs: of a row.
    passes: how often the pairs are shown (Arora et al. 2024, arXiv:2407.05483: twice helps recurrent models).
  Raises:
    Mistake: a row has more pairs than there are values.
  """

  # these follow from the fields below
  length: ClassVar[int]  # type: ignore[misc]
  vocab: ClassVar[int]  # type: ignore[misc]
  eval_rows: int = 1024
  values: int = 128
  size: int = 32
  pairs: int = 16
  passes: int = 1

  def __post_init__(self) -> None:
    self.require_sizes()
    self.require("values", self.values >= 2, "at least 2")
    self.require("size", self.size >= 1, "at least 1")
    self.require("pairs", 1 <= self.pairs <= self.values, f"1 … values = {self.values}")
    self.require("passes", self.passes >= 1, "at least 1")

  @property  # type: ignore[no-redef]
  def length(self) -> int:
    """Returns the tokens of a row: the pairs as often as they are shown, and a query for each."""
    return (self.passes + 1) * self.pairs

  @property  # type: ignore[no-redef]
  def vocab(self) -> int:
    """Returns how many values there are, of which the head names one."""
    return self.values

  @property
  def features(self) -> int:  # type: ignore[override]
    """Returns how many entries a key's vector and a value's have together."""
    return 2 * self.size

  def vectors(self) -> np.ndarray:
    """Returns the vectors of the keys and of the values, float32 `2 values size`."""
    u = draws.unit(draws.bits(EVAL_SEED, "continuous_mqar/vectors", 0, 2 * self.values, 2 * self.size))
    # Box and Muller: normal numbers from two uniform ones
    normal = np.sqrt(-2 * np.log(u[:, : self.size])) * np.cos(2 * np.pi * u[:, self.size :])
    return (normal / np.sqrt(self.size)).astype(np.float32).reshape(2, self.values, self.size)

  def sample(self, seed: int, stream: str, first: int, rows: int) -> Batch:
    """Returns `rows` rows of one stream."""
    k, shown = self.pairs, self.passes * self.pairs
    u = draws.bits(seed, f"continuous_mqar/{stream}", first, rows, 2 * k + (self.passes + 1) * k)
    key, value = draws.distinct(u[:, :k], self.values), draws.distinct(u[:, k : 2 * k], self.values)
    orders = [draws.distinct(part, k) for part in np.split(u[:, 2 * k :], self.passes + 1, axis=1)]
    order = np.concatenate(orders, axis=1)
    keys, values = self.vectors()
    key, value = np.take_along_axis(key, order, axis=1), np.take_along_axis(value, order, axis=1)
    inputs = np.concatenate([keys[key], values[value]], axis=-1)
    inputs[:, shown:, self.size :] = 0
    asked = np.broadcast_to(np.arange(shown + k) >= shown, key.shape)
    targets = np.where(asked, value, 0).astype(np.int32)
    return {"inputs": inputs, "targets": targets, "weights": asked.astype(np.float32)}
