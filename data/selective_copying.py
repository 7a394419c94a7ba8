"""Selective copying: repeat, in order, the tokens scattered among noise (Mamba, Gu & Dao 2023, App. E.1).

The paper's code was never released; this is the `variable` form of the copying task of the S4 code base with the
paper's sizes. A row is L positions of noise (token 0) in which `tokens` data tokens stand at random places, then
`tokens` markers (token vocab - 1), at which the data tokens must be given back in order. Only those answers are scored.
`length` is the whole row: the paper's L = 4096 with 16 tokens is `length=4112,tokens=16`.
"""

import dataclasses

import numpy as np

from data import draws
from data.generated import EVAL_SEED, Generated, packed, stage_at, stages_fit
from data.pipeline import Batch


@dataclasses.dataclass(frozen=True)
class SelectiveCopying(Generated):
  """Data tokens are uniform on 1 … vocab - 2, their places a uniform subset of the first length - tokens positions.

  Attributes:
    stages: a curriculum, rows of (first step, sequence length). Sequences shorter than `length`, which they must
      divide, are packed into rows with `reset`.
  Raises:
    ValueError: a row has no room for the data tokens and as many answers, or the vocabulary has no data tokens.
  """

  length: int = 272
  tokens: int = 16
  stages: tuple[tuple[int, int], ...] = ()

  def __post_init__(self) -> None:
    self.require_sizes()
    self.require("vocab", self.vocab >= 3, "at least 3 (noise, marker and one data token)")
    self.require("tokens", self.tokens >= 1, "at least 1")
    self.require("length", self.length >= 2 * self.tokens, f"at least 2 · tokens = {2 * self.tokens}")
    self.require("stages", stages_fit(self.stages, 2), "rows (first step, length), first steps 0 < … growing")
    for _, length in self.stages:
      fits = length >= 2 * self.tokens and self.length % length == 0
      self.require("stages", fits, f"each length must divide data.length={self.length} and be at least 2 · tokens")

  def training_rows(self, first: int, rows: int) -> Batch:
    """Returns rows of the endless training stream; see `Generated.training_rows`."""
    if not self.stages:
      return self.sample(self.seed, "train", first, rows, self.length)
    stage = stage_at(self.stages, first // self.batch)
    length = self.stages[stage][1]
    make = lambda start, count: self.sample(self.seed, f"train/{stage}", start, count, length)
    # every batch of a run has the same keys
    reset = any(row[1] < self.length for row in self.stages)
    return packed(make, first, rows, self.length, length, reset=reset)

  def validation_rows(self, first: int, rows: int) -> Batch:
    """Returns rows of the fixed validation set; see `Generated.validation_rows`."""
    return self.sample(EVAL_SEED, "validation", first, rows, self.length)

  def sample(self, seed: int, stream: str, first: int, rows: int, length: int) -> Batch:
    """Returns `rows` sequences of one stream."""
    m, space = self.tokens, length - self.tokens
    u = draws.bits(seed, f"selective_copying/{stream}", first, rows, 2 * m)
    positions = self.positions(u[:, :m], space)
    data = 1 + draws.below(u[:, m:], self.vocab - 2)
    inputs = np.zeros((rows, length), np.int32)
    np.put_along_axis(inputs, positions, data, axis=1)
    inputs[:, space:] = self.vocab - 1
    targets, weights = np.zeros_like(inputs), np.zeros(inputs.shape, np.float32)
    targets[:, space:], weights[:, space:] = data, 1
    return {"inputs": inputs, "targets": targets, "weights": weights}

  def positions(self, u: np.ndarray, space: int) -> np.ndarray:
    """Returns where the data tokens of each row stand, in order: `rows tokens` positions below `space`."""
    return np.sort(draws.distinct(u, space), axis=1)
