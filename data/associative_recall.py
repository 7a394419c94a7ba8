"""Associative recall: pairs of a key and its value, then one key again, whose value is asked (Ba et al. 2016).

The form of the H3 paper (Fu et al. 2023, arXiv:2212.14052, sec. 3.1): each row has a value of its own for every key,
the keys of its pairs are drawn with replacement, so that a key comes back with the same value, and the last key is
uniform among those of the row. The authors' code (HazyResearch/safari, experiments.md) promises above 97 % for
attention and H3, and less for S4D. data/mqar.py asks for many keys of a row.
"""

import dataclasses

import numpy as np

from data import draws
from data.generated import Sampled
from data.pipeline import Batch


@dataclasses.dataclass(frozen=True)
class AssociativeRecall(Sampled):
  """Token 0 stands before the question; keys are 1 … keys, values all tokens above, so that chance is one of those.

  Attributes:
    length: tokens of a row: pairs, the separator and the key asked for.
    keys: how many there are; 0 for half of the tokens.
  Raises:
    Mistake: the length is odd or below 4, or the vocabulary has no key or no two values.
  """

  length: int = 20
  vocab: int = 41
  keys: int = 0

  def __post_init__(self) -> None:
    self.require_sizes()
    self.require("length", self.length >= 4 and self.length % 2 == 0, "even and at least 4: pairs and two tokens more")
    self.require("vocab", self.vocab >= 4, "at least 4 (separator, a key and two values)")
    self.require("keys", 0 <= self.keys <= self.vocab - 3, f"1 … vocab - 3 = {self.vocab - 3}, or 0 for half")

  def sample(self, seed: int, stream: str, first: int, rows: int) -> Batch:
    """Returns `rows` rows of one stream."""
    keys, pairs = self.keys or (self.vocab - 1) // 2, self.length // 2 - 1
    u = draws.bits(seed, f"associative_recall/{stream}", first, rows, 2 * keys + pairs)
    value_of = 1 + keys + draws.below(u[:, :keys], self.vocab - 1 - keys)
    of_pair = draws.below(u[:, 2 * keys :], keys)
    present = np.zeros((rows, keys), bool)
    np.put_along_axis(present, of_pair, True, axis=1)
    # the largest of equal draws is uniform among the keys that are there
    asked = np.argmax(np.where(present, u[:, keys : 2 * keys].astype(np.int64), -1), axis=1)[:, None]
    inputs = np.zeros((rows, self.length), np.int32)
    inputs[:, 0:-2:2], inputs[:, 1:-2:2] = 1 + of_pair, np.take_along_axis(value_of, of_pair, axis=1)
    inputs[:, -1:] = 1 + asked
    targets, weights = np.zeros_like(inputs), np.zeros(inputs.shape, np.float32)
    targets[:, -1:], weights[:, -1] = np.take_along_axis(value_of, asked, axis=1), 1
    return {"inputs": inputs, "targets": targets, "weights": weights}
