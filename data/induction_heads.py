"""Induction heads: say what followed the trigger last time (Mamba, Gu & Dao 2023, App. E.1; H3, Fu et al. 2022).

A sequence of L tokens x_0 … x_{L-1} has 15 ordinary symbols, iid, and one trigger: at a place p of 0 … L - 4 and again
at L - 2; the answer is x_{L-1} = x_{p+1}, chance is 1/15. The paper's code was never released; H3's generator differs
(it numbers its vocabulary in string order and draws a fixed training set).

Departs: the row holds L inputs, not L - 1, so that lengths are powers of two; the last one is a random ordinary symbol,
not the answer, and nothing is asked there. `triggers` above 1 places that many before the last (never adjacent), each
followed by the answer.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from data import draws
from data.generated import EVAL_SEED, Generated, length_sets, packed, stage_at, stages_fit
from data.pipeline import Batch

SCORES = ("last", "triggers", "all")


@dataclasses.dataclass(frozen=True)
class InductionHeads(Generated):
  """Recall the token that followed the trigger, which is token vocab - 1.

  Attributes:
    triggers: occurrences before the last one.
    score: what training scores: 'last' (the paper's protocol), 'triggers' (every occurrence but the first) or 'all'
      (each next token). Evaluation scores the last alone, with one trigger before it.
    stages: a curriculum, rows of (first step, sequence length, triggers). Sequences shorter than `length`, which they
      must divide, are packed into rows with `reset`.
    eval_lengths: one evaluation set each, 'length_L'.
    eval_rows: rows of each, fewer where eval_tokens says so. The published accuracies are multiples of 1/256.
    eval_tokens: most tokens of an evaluation set; it has at least one batch.
  """

  batch: int = 8
  triggers: int = 1
  score: str = "last"
  stages: tuple[tuple[int, int, int], ...] = ()
  eval_lengths: tuple[int, ...] = (64, 128, 256)
  eval_rows: int = 256
  eval_tokens: int = 2**24

  def __post_init__(self) -> None:
    self.require_sizes()
    self.require("vocab", self.vocab >= 3, "at least 3 (two ordinary symbols and the trigger)")
    self.require("score", self.score in SCORES, f"choose from {SCORES}")
    self.require("triggers", self.triggers >= 1, "at least 1")
    self.require(
      "length", self.length >= shortest(self.triggers), f"at least 2 · triggers + 2 = {shortest(self.triggers)}"
    )
    self.require("stages", stages_fit(self.stages, 3), "rows (first step, length, triggers), first steps 0 < … growing")
    for _, length, triggers in self.stages:
      fits = triggers >= 1 and length >= shortest(triggers) and self.length % length == 0
      self.require(
        "stages", fits, f"each length must divide data.length={self.length} and hold 2 · triggers + 2 tokens"
      )
    self.require("eval_lengths", all(n >= shortest(1) for n in self.eval_lengths), f"at least {shortest(1)} each")

  def training_rows(self, first: int, rows: int) -> Batch:
    """Returns rows of the endless training stream; see `Generated.training_rows`."""
    if not self.stages:
      return self.sample(self.seed, "train", first, rows, self.length, self.triggers, self.score)
    stage = stage_at(self.stages, first // self.batch)
    _, length, triggers = self.stages[stage]
    make = lambda start, count: self.sample(self.seed, f"train/{stage}", start, count, length, triggers, self.score)
    # every batch of a run has the same keys
    reset = any(row[1] < self.length for row in self.stages)
    return packed(make, first, rows, self.length, length, reset=reset)

  def validation_rows(self, first: int, rows: int) -> Batch:
    """Returns validation rows of the training length; see `Generated.validation_rows`."""
    return self.evaluation_rows(self.length, first, rows)

  def evaluation_rows(self, length: int, first: int, rows: int) -> Batch:
    """Returns rows of the fixed evaluation set of one length."""
    return self.sample(EVAL_SEED, f"length_{length}", first, rows, length, 1, "last")

  def eval_sets(self, process_index: int = 0, process_count: int = 1) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns a set 'length_L' for each of `eval_lengths`."""
    sets = {f"length_{n}": (n, n) for n in self.eval_lengths}
    return length_sets(self.evaluation_rows, sets, self, self.eval_tokens, process_index, process_count)

  def sample(self, seed: int, stream: str, first: int, rows: int, length: int, triggers: int, score: str) -> Batch:
    """Returns `rows` sequences of one stream."""
    trigger, last = self.vocab - 1, length - 2
    u = draws.bits(seed, f"induction_heads/{stream}", first, rows, length + triggers)
    inputs = draws.below(u[:, :length], self.vocab - 1)
    # distinct places in a range shortened by triggers - 1, spread apart again: a uniform choice among sets without
    # neighbours
    positions = np.sort(draws.distinct(u[:, length:], last - triggers), axis=1) + np.arange(triggers, dtype=np.int32)
    answer = np.take_along_axis(inputs, positions[:, :1] + 1, axis=1)
    np.put_along_axis(inputs, positions, trigger, axis=1)
    np.put_along_axis(inputs, positions + 1, answer, axis=1)
    inputs[:, last] = trigger
    targets = np.roll(inputs, -1, axis=1)
    targets[:, last], targets[:, -1] = answer[:, 0], 0
    weights = np.zeros(inputs.shape, np.float32)
    weights[:, last] = 1
    if score == "triggers":
      np.put_along_axis(weights, positions[:, 1:], 1, axis=1)
    if score == "all":
      weights[:, :last] = 1
    return {"inputs": inputs, "targets": targets, "weights": weights}


def shortest(triggers: int) -> int:
  """Returns the shortest length with room for the triggers, the tokens after them, the question and the answer."""
  return 2 * triggers + 2
