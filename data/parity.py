"""Parity: the sum of the bits so far, modulo 2 (Beck et al. 2024, arXiv:2405.04517, App. D.2; its `tasks/parity.py`).

A question is n symbols 0 … vocab - 2, iid, each written as the token one above it; 0 pads. The answer is their sum
modulo vocab - 1, written alike, so that chance is 1 / (vocab - 1): `vocab=3` is parity. A fixed number of real
positive decays, and a fixed number of attention layers, solve it up to some length only.
"""

import dataclasses

import numpy as np

from data import draws
from data.state_tracking import StateTracking


@dataclasses.dataclass(frozen=True)
class Parity(StateTracking):
  """Tell the parity of bits. Every size from 1 exists; the value so far is known at every token.

  Raises:
    ValueError: the vocabulary has no two symbols, or a range of sizes is empty.
  """

  vocab: int = 3

  def __post_init__(self) -> None:
    self.require("vocab", self.vocab >= 3, "at least 3 (padding and two symbols)")
    self.require_range()

  def sizes(self, low: int, high: int) -> np.ndarray:
    """Returns all sizes in low … high; see `StateTracking.sizes`."""
    return np.arange(low, high + 1)

  def numbers(self, width: int) -> int:
    """Returns one random number a token; see `StateTracking.numbers`."""
    return width

  def questions(self, u: np.ndarray, sizes: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns random symbols, and at each token the sum of those so far; see `StateTracking.questions`."""
    symbols = draws.below(u, self.vocab - 1)
    return symbols + 1, np.cumsum(symbols, axis=1) % (self.vocab - 1) + 1
