"""Multi-query associative recall (Zoology, Arora et al. 2023, arXiv:2312.04927; its `multiquery_ar.py`).

A row is `pairs` keys and values, k_1 v_1 k_2 v_2 …, then queries: each key once, at the even place 2·gap of what
follows, where the gaps are distinct and drawn with p_i ∝ i^(power - 1), i = 1 … (length - 2·pairs) / 2. The value is to
be predicted at the query's own position. Keys are distinct in 1 … vocab/2 - 1, values distinct in vocab/2 … vocab - 1;
the other places hold 0 or, with `random_non_queries`, any token (which may happen to be a key).

Departs: rows are fresh every step instead of a fixed set of 100,000; `num_passes` above 1 is left out.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from data import draws
from data.generated import EVAL_SEED, Generated, length_sets, stage_at, stages_fit
from data.pipeline import Batch


@dataclasses.dataclass(frozen=True)
class MQAR(Generated):
  """Recall the values of several keys.

  Theirs: vocab_size → vocab, input_seq_len → length, num_kv_pairs → pairs, power_a → power.

  Attributes:
    power: 1 makes the gaps uniform; small values put queries near the front.
    stages: a curriculum, rows of (first step, pairs).
    mixture: rows of (length, pairs, share): each training row takes one of them at random in proportion to the shares,
      is padded to `length`, and `lengths` says how long it is. Replaces `pairs`.
    eval_sizes: rows of (length, pairs), one evaluation set 'length_L_pairs_K' each; without any, 'validation' has the
      training sizes.
  Raises:
    ValueError: 4 · pairs > length, an odd length, a vocabulary not above the length.
  """

  length: int = 64
  vocab: int = 8192
  eval_rows: int = 1024
  pairs: int = 4
  power: float = 0.01
  random_non_queries: bool = True
  stages: tuple[tuple[int, int], ...] = ()
  mixture: tuple[tuple[int, int, float], ...] = ()
  eval_sizes: tuple[tuple[int, int], ...] = ()

  def __post_init__(self) -> None:
    self.require_sizes()
    self.require("power", self.power > 0, "above 0 (1 is uniform)")
    self.require("stages", stages_fit(self.stages, 2), "rows (first step, pairs), first steps 0 < … growing")
    self.require("mixture", not (self.mixture and self.stages), "choose stages or mixture, not both")
    self.require(
      "mixture", all(len(row) == 3 and row[2] > 0 for row in self.mixture), "rows (length, pairs, share > 0)"
    )
    self.require(
      "mixture", all(row[0] <= self.length for row in self.mixture), f"no length above data.length={self.length}"
    )
    self.require("eval_sizes", all(len(row) == 2 for row in self.eval_sizes), "rows (length, pairs)")
    self.require_room("pairs", self.length, self.pairs)
    for _, pairs in self.stages:
      self.require_room("stages", self.length, pairs)
    for length, pairs, _ in self.mixture:
      self.require_room("mixture", length, pairs)
    for length, pairs in self.eval_sizes:
      self.require_room("eval_sizes", length, pairs)

  def require_room(self, field: str, length: int, pairs: int) -> None:
    """Checks Zoology's conditions on the sizes of a row."""
    self.require(
      "vocab" if field == "pairs" else field, self.vocab > length, f"the vocabulary must be above the length {length}"
    )
    self.require("length" if field == "pairs" else field, length % 2 == 0, f"the length {length} must be even")
    self.require(field, 1 <= pairs <= length // 4, f"1 … length // 4 = {length // 4} pairs fit into {length} tokens")
    self.require(
      "vocab" if field == "pairs" else field, pairs < self.vocab // 2, f"{pairs} pairs need as many distinct keys"
    )

  def training_rows(self, first: int, rows: int) -> Batch:
    """Returns rows of the endless training stream; see `Generated.training_rows`."""
    if self.mixture:
      return self.mixed(first, rows)
    if not self.stages:
      return self.sample((self.length, self.pairs), self.seed, "train", first, rows)
    stage = stage_at(self.stages, first // self.batch)
    return self.sample((self.length, self.stages[stage][1]), self.seed, f"train/{stage}", first, rows)

  def validation_rows(self, first: int, rows: int) -> Batch:
    """Returns validation rows of the training length and number of pairs; see `Generated.validation_rows`."""
    return self.evaluation_rows((self.length, self.pairs), first, rows)

  def evaluation_rows(self, size: tuple[int, int], first: int, rows: int) -> Batch:
    """Returns rows of the fixed evaluation set of one (length, pairs)."""
    return self.sample(size, EVAL_SEED, f"validation/{size[0]}/{size[1]}", first, rows)

  def eval_sets(self, process_index: int = 0, process_count: int = 1) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns 'validation', or a set 'length_L_pairs_K' for each of `eval_sizes`."""
    sets: dict[str, Any] = {f"length_{n}_pairs_{k}": ((n, k), n) for n, k in self.eval_sizes}
    if not sets:
      return super().eval_sets(process_index, process_count)
    budget = self.eval_rows * max(n for n, _ in self.eval_sizes)
    return length_sets(self.evaluation_rows, sets, self, budget, process_index, process_count)

  def mixed(self, first: int, rows: int) -> Batch:
    """Returns rows of several sizes, padded to `length`."""
    shares = np.cumsum([row[2] for row in self.mixture])
    u = draws.unit(draws.bits(self.seed, "mqar/mixture", first, rows, 1)[:, 0])
    which = np.searchsorted(shares / shares[-1], u, side="right")
    batch = {
      "inputs": np.zeros((rows, self.length), np.int32),
      "targets": np.zeros((rows, self.length), np.int32),
      "weights": np.zeros((rows, self.length), np.float32),
      "lengths": np.asarray([row[0] for row in self.mixture], np.int32)[which],
    }
    for part in np.unique(which):
      length, pairs, _ = self.mixture[part]
      rows_of_part = self.sample((length, pairs), self.seed, f"train/{part}", first, rows)
      for key, x in rows_of_part.items():
        batch[key][which == part, :length] = x[which == part]
    return batch

  def sample(self, size: tuple[int, int], seed: int, stream: str, first: int, rows: int) -> Batch:
    """Returns `rows` rows of one stream and one (length, pairs)."""
    length, k = size
    half, space = self.vocab // 2, (length - 2 * k) // 2
    u = draws.bits(seed, f"mqar/{stream}", first, rows, 2 * k + space + length)
    keys = 1 + draws.distinct(u[:, :k], half - 1)
    values = half + draws.distinct(u[:, k : 2 * k], self.vocab - half)
    gaps = draws.weighted(u[:, 2 * k : 2 * k + space], np.arange(1, space + 1) ** (self.power - 1.0), k)
    asked = 2 * k + 2 * gaps
    inputs, targets = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.int32)
    inputs[:, 0 : 2 * k : 2], inputs[:, 1 : 2 * k : 2] = keys, values
    np.put_along_axis(inputs, asked, keys, axis=1)
    np.put_along_axis(targets, asked, values, axis=1)
    weights = (targets > 0).astype(np.float32)
    if self.random_non_queries:
      inputs = np.where(inputs == 0, draws.below(u[:, 2 * k + space :], self.vocab), inputs)
    return {"inputs": inputs, "targets": targets, "weights": weights}
