"""Newer forms of multi-query associative recall (Zoology's `forgetting_mqar.py` and `compositional_ar.py`, 2025).

* forgetting: after its pairs a row has `updates` of the keys again with other values, each key once; what is asked is
  a key's last value. Context: 2 · (pairs + updates) tokens, then queries as in data/mqar.py.
* compositional: a key is two tokens. Of the root of `pairs` first and as many second tokens every combination has a
  value of its own, so that neither token alone tells it; the combinations stand in random order. The value is asked at
  the second token of a query; queries begin at multiples of 3 of what follows the context. The vocabulary is cut into
  thirds: first tokens, second tokens, values.

data/continuous_mqar.py is the third one. Gaps, random fill and vocabulary are those of data/mqar.py.

Departs: rows are fresh every step. A new value differs from the key's own old one (theirs is compared with that of
another key).
"""

import dataclasses
import math

import numpy as np

from data import draws
from data.generated import Sampled
from data.pipeline import Batch

FORMS = ("forgetting", "compositional")


@dataclasses.dataclass(frozen=True)
class MQARForms(Sampled):
  """Recall of keys whose values change, or of keys of two tokens.

  Attributes:
    pairs: keys and values of a row; a square number where they are compositional.
    updates: keys that get a new value, where there is forgetting.
    power: of the law of the gaps; 1 is uniform.
  Raises:
    Mistake: a row has no room for context and queries, or the vocabulary is too small.
  """

  length: int = 64
  vocab: int = 256
  eval_rows: int = 1024
  form: str = "forgetting"
  pairs: int = 4
  updates: int = 2
  power: float = 0.01
  random_non_queries: bool = True

  def __post_init__(self) -> None:
    self.require_sizes()
    self.require("form", self.form in FORMS, f"choose from {FORMS}")
    self.require("power", self.power > 0, "above 0 (1 is uniform)")
    self.require("length", self.length % 2 == 0, "even")
    self.require("vocab", self.vocab > self.length, f"above the length {self.length}")
    if self.form == "forgetting":
      self.require("updates", 0 <= self.updates <= self.pairs, f"0 … pairs = {self.pairs}")
      least, keys = 4 * self.pairs + 2 * self.updates, self.vocab // 2 - 1
    else:
      square = math.isqrt(max(self.pairs, 0)) ** 2 == self.pairs
      self.require("pairs", square, "a square number: every first token goes with every second one")
      least, keys = 6 * self.pairs, (self.vocab // 3 - 1) ** 2
    self.require("pairs", 1 <= self.pairs <= keys, f"1 … {keys} with this vocabulary")
    self.require("length", self.length >= least, f"at least {least} for {self.pairs} pairs")

  def sample(self, seed: int, stream: str, first: int, rows: int) -> Batch:
    """Returns `rows` rows of one stream."""
    make = self._forgetting if self.form == "forgetting" else self._compositional
    u = draws.bits(seed, f"mqar_forms/{self.form}/{stream}", first, rows, 4 * self.pairs + 2 * self.length)
    context, query, values = make(u[:, 2 * self.length :])
    # a query and one token more
    start, step = context.shape[1], query.shape[2] + 1
    space = (self.length - start) // step
    law = np.arange(1, space + 1) ** (self.power - 1.0)
    gaps = draws.weighted(u[:, self.length : self.length + space], law, self.pairs)
    inputs, targets = np.zeros((rows, self.length), np.int32), np.zeros((rows, self.length), np.int32)
    inputs[:, :start] = context
    for i in range(query.shape[2]):
      np.put_along_axis(inputs, start + step * gaps + i, query[..., i], axis=1)
    np.put_along_axis(targets, start + step * gaps + query.shape[2] - 1, values, axis=1)
    weights = (targets > 0).astype(np.float32)
    if self.random_non_queries:
      inputs = np.where(inputs == 0, draws.below(u[:, : self.length], self.vocab), inputs)
    return {"inputs": inputs, "targets": targets, "weights": weights}

  def _forgetting(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the context, the queries `rows pairs tokens` and their values."""
    half, k, n = self.vocab // 2, self.pairs, self.updates
    keys, values = 1 + draws.distinct(u[:, :k], half - 1), half + draws.distinct(u[:, k : 2 * k], self.vocab - half)
    which = draws.distinct(u[:, 2 * k : 2 * k + n], k)
    old = np.take_along_axis(values, which, axis=1)
    # any value but the old one, evenly
    new = half + (old - half + 1 + draws.below(u[:, 3 * k : 3 * k + n], self.vocab - half - 1)) % (self.vocab - half)
    context = np.empty((len(u), 2 * (k + n)), np.int32)
    context[:, ::2] = np.concatenate([keys, np.take_along_axis(keys, which, axis=1)], axis=1)
    context[:, 1::2] = np.concatenate([values, new], axis=1)
    np.put_along_axis(values, which, new, axis=1)
    return context, keys[..., None], values

  def _compositional(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the context, the queries `rows pairs tokens` and their values."""
    third, side, k = self.vocab // 3, math.isqrt(self.pairs), self.pairs
    left = 1 + draws.distinct(u[:, :side], third - 1)
    right = third + draws.distinct(u[:, side : 2 * side], third)
    values = 2 * third + draws.distinct(u[:, 2 * k : 3 * k], self.vocab - 2 * third)
    order = draws.distinct(u[:, 3 * k : 4 * k], k)
    query = np.stack([np.take_along_axis(left, order // side, 1), np.take_along_axis(right, order % side, 1)], axis=-1)
    context = np.concatenate([query, values[..., None]], axis=-1).reshape(len(u), -1)
    return context, query, values
