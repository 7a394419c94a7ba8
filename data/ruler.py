"""RULER's synthetic problems with words for tokens (Hsieh et al. 2024, arXiv:2404.06654).

* niah: "key is value" stands somewhere in the haystack, for each of `keys` keys `values` times with other values; all
  values of `queries` of the keys are asked, each key's in their order.
* variable_tracking: x_1 is a value, x_2 is x_1, … x_(hops + 1) is x_hops, in this order; which variables have the value
  is asked. `keys` chains, of which one is asked for.
* common_words: ten words stand 30 times each, all others three times, shuffled; the ten are asked, in the order of
  their first occurrences.
* frequent_words: word i stands in proportion to i^-2, shuffled; the three most frequent are asked, in that order.

Of the thirteen published problems, niah with haystack="noise" is single_1, keys=4 multikey_1, haystack="needles"
multikey_2, values=4 multivalue, queries=4 multiquery, but for their essays, in whose place is noise; those with UUIDs
and the two of questions about paragraphs are not here.

Tokens: 0 padding, 1 the question, 2 "is", 3 … 22 the noise, always in this order, then words: the lower half of them
keys and variables, the upper half values. Answers are predicted one after the other, each from those before it.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from data import draws
from data.generated import EVAL_SEED, Generated, length_sets
from data.pipeline import Batch

PROBLEMS = ("niah", "variable_tracking", "common_words", "frequent_words")
HAYSTACKS = ("noise", "needles")
QUESTION, IS, NOISE, WORD = 1, 2, 3, 23
COMMON, OFTEN, RARE, FREQUENT, POWER = 10, 30, 3, 3, 2.0
Made = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Ruler(Generated):
  """Answer questions about a context; context, question and answers fill a row.

  Attributes:
    problem: one of the four.
    keys, values, queries, haystack: of niah; `keys` also the chains of variable_tracking.
    hops: of variable_tracking.
    eval_lengths: one evaluation set 'length_L' each; without any, data.length.
  Raises:
    Mistake: a row has no room for the context, or the vocabulary has too few words.
  """

  length: int = 512
  vocab: int = 512
  eval_rows: int = 256
  problem: str = "niah"
  keys: int = 1
  values: int = 1
  queries: int = 1
  haystack: str = "noise"
  hops: int = 4
  eval_lengths: tuple[int, ...] = ()

  def __post_init__(self) -> None:
    self.require_sizes()
    self.require("problem", self.problem in PROBLEMS, f"choose from {PROBLEMS}")
    self.require("haystack", self.haystack in HAYSTACKS, f"choose from {HAYSTACKS}")
    for field in ("keys", "values", "queries", "hops"):
      self.require(field, getattr(self, field) >= 1, "at least 1")
    self.require("queries", self.queries <= self.keys or self.problem != "niah", f"at most keys = {self.keys}")
    for field, lengths in (("length", (self.length,)), ("eval_lengths", self.eval_lengths)):
      self.require(field, all(n >= self.shortest for n in lengths), f"at least {self.shortest} for this problem")
      most = max((self.words_needed(n) for n in lengths), default=0)
      self.require("vocab", self.half >= most, f"at least {WORD + 2 * most} for this problem and data.{field}")

  @property
  def half(self) -> int:
    """Returns how many keys there are; there are at least as many values."""
    return (self.vocab - WORD) // 2

  @property
  def tail(self) -> int:
    """Returns how many tokens follow the context: questions and answers."""
    answers = {"variable_tracking": self.hops + 1, "common_words": COMMON, "frequent_words": FREQUENT}
    if self.problem == "niah":
      return self.queries * (2 + self.values)
    return answers[self.problem] + (2 if self.problem == "variable_tracking" else 1)

  @property
  def shortest(self) -> int:
    """Returns the tokens of the shortest row."""
    needles = {"niah": self.keys * self.values, "variable_tracking": self.keys * (self.hops + 1)}
    context = {"common_words": COMMON * OFTEN + RARE, "frequent_words": 40}
    return self.tail + context.get(self.problem, 3 * needles.get(self.problem, 0))

  def words_needed(self, length: int) -> int:
    """Returns how many different keys a row of some length has."""
    context = length - self.tail
    if self.problem == "niah":
      return context // 3 if self.haystack == "needles" else max(self.keys, self.keys * self.values)
    if self.problem == "variable_tracking":
      return self.keys * (self.hops + 1)
    return COMMON + (context - COMMON * OFTEN) // RARE if self.problem == "common_words" else len(shares(context))

  def training_rows(self, first: int, rows: int) -> Batch:
    """Returns rows of the endless training stream; see `Generated.training_rows`."""
    return self.sample(self.seed, "train", first, rows, self.length)

  def validation_rows(self, first: int, rows: int) -> Batch:
    """Returns rows of the fixed validation set; see `Generated.validation_rows`."""
    return self.evaluation_rows(self.length, first, rows)

  def evaluation_rows(self, length: int, first: int, rows: int) -> Batch:
    """Returns rows of the fixed evaluation set of one length."""
    return self.sample(EVAL_SEED, f"length_{length}", first, rows, length)

  def eval_sets(self, process_index: int = 0, process_count: int = 1) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns a set 'length_L' for each of `eval_lengths`."""
    lengths = self.eval_lengths or (self.length,)
    sets = {f"length_{n}": (n, n) for n in lengths}
    return length_sets(self.evaluation_rows, sets, self, self.eval_rows * max(lengths), process_index, process_count)

  def sample(self, seed: int, stream: str, first: int, rows: int, length: int) -> Batch:
    """Returns `rows` rows of one stream and one length."""
    u = draws.bits(seed, f"ruler/{self.problem}/{stream}", first, rows, 4 * length)
    context, tail, scored = getattr(self, f"_{self.problem}")(u, length - self.tail)
    row = np.concatenate([context, tail], axis=1).astype(np.int32)
    targets, weights = np.roll(row, -1, axis=1), np.zeros(row.shape, np.float32)
    # an answer is predicted at the token before it
    weights[:, length - self.tail - 1 : -1] = scored
    return {"inputs": row, "targets": np.where(weights > 0, targets, 0).astype(np.int32), "weights": weights}

  def _units(self, u: np.ndarray, context: int, needles: np.ndarray, *, sort: bool) -> tuple[np.ndarray, np.ndarray]:
    """Puts needles "rows n 3" into noise at random positions, and returns these, sorted if `sort`."""
    rows, n = needles.shape[:2]
    units = context // 3
    positions = draws.distinct(u[:, :n], units)
    positions = np.sort(positions, axis=1) if sort else positions
    row = np.tile(NOISE + np.arange(context) % (WORD - NOISE), (rows, 1))
    # what is left over stands before the first unit
    index = (context - 3 * units + 3 * positions)[..., None] + np.arange(3)
    np.put_along_axis(row, index.reshape(rows, -1), needles.reshape(rows, -1), axis=1)
    return row, positions

  def _niah(self, u: np.ndarray, context: int) -> Made:
    rows, k, v, q = len(u), self.keys, self.values, self.queries
    filled = context // 3 - k * v if self.haystack == "needles" else 0
    keys = WORD + draws.distinct(u[:, : k + filled], self.half)
    u = u[:, k + filled :]
    values = WORD + self.half + draws.distinct(u[:, : k * v], self.vocab - WORD - self.half)
    others = WORD + self.half + draws.below(u[:, k * v : k * v + filled], self.vocab - WORD - self.half)
    left = np.concatenate([np.repeat(keys[:, :k], v, axis=1), keys[:, k:]], axis=1)
    right = np.concatenate([values, others], axis=1)
    needles = np.stack([left, np.full_like(left, IS), right], axis=-1)
    row, positions = self._units(u[:, k * v + filled :], context, needles, sort=False)
    # keys are drawn in random order, so that the first ones are any
    order = np.argsort(positions[:, : k * v].reshape(rows, k, v), axis=2)
    answers = np.take_along_axis(values.reshape(rows, k, v), order, axis=2)[:, :q]
    asked = np.concatenate([np.full((rows, q, 1), QUESTION), keys[:, :q, None], answers], axis=2)
    scored = np.tile(np.arange(2 + v) >= 2, q)
    return row, asked.reshape(rows, -1), scored

  def _variable_tracking(self, u: np.ndarray, context: int) -> Made:
    rows, chains, steps = len(u), self.keys, self.hops + 1
    names = (WORD + draws.distinct(u[:, : chains * steps], self.half)).reshape(rows, chains, steps)
    u = u[:, chains * steps :]
    value = WORD + self.half + draws.distinct(u[:, :chains], self.vocab - WORD - self.half)
    before = np.concatenate([value[..., None], names[..., :-1]], axis=2)
    needles = np.stack([names, np.full_like(names, IS), before], axis=-1)
    # which chain each of the places belongs to is random, and a chain's own steps are in order
    turn = np.argsort(u[:, chains : chains + chains * steps], axis=1, kind="stable") % chains
    count = (turn[:, :, None] == np.arange(chains)).cumsum(axis=1)
    step = np.take_along_axis(count, turn[..., None], axis=2)[..., 0] - 1
    mixed = needles[np.arange(rows)[:, None], turn, step]
    row, _ = self._units(u[:, chains + chains * steps :], context, mixed, sort=True)
    tail = np.concatenate([np.full((rows, 1), QUESTION), value[:, :1], names[:, 0]], axis=1)
    return row, tail, np.arange(self.tail) >= 2

  def _common_words(self, u: np.ndarray, context: int) -> Made:
    rare = (context - COMMON * OFTEN) // RARE
    counts = np.repeat([OFTEN, RARE], [COMMON, rare])
    row, words = self._shuffled(u, context, counts)
    first = (row[:, None] == words[:, :COMMON, None]).argmax(axis=2)
    answers = np.take_along_axis(words, np.argsort(first, axis=1), axis=1)
    return row, np.pad(answers, ((0, 0), (1, 0)), constant_values=QUESTION), np.arange(self.tail) >= 1

  def _frequent_words(self, u: np.ndarray, context: int) -> Made:
    row, words = self._shuffled(u, context, shares(context))
    answers = words[:, :FREQUENT]
    return row, np.pad(answers, ((0, 0), (1, 0)), constant_values=QUESTION), np.arange(self.tail) >= 1

  def _shuffled(self, u: np.ndarray, context: int, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns words as often as `counts` says and noise for the rest, in random order; and the words."""
    n = len(counts)
    words = WORD + draws.distinct(u[:, :n], self.half)
    left = np.tile(NOISE + np.arange(context - counts.sum()) % (WORD - NOISE), (len(u), 1))
    row = np.concatenate([np.repeat(words, counts, axis=1), left], axis=1)
    order = np.argsort(u[:, n : n + context], axis=1, kind="stable")
    return np.take_along_axis(row, order, axis=1), words


def shares(context: int) -> np.ndarray:
  """Returns how often each word stands in frequent_words' context: in proportion to i^-POWER, whole, at least once."""
  p = np.arange(1, context + 1) ** -POWER
  counts = np.floor(context * p / p.sum()).astype(int)
  return counts[counts > 0]
