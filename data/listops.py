"""ListOps of the Long Range Arena: the value of a nested expression of list operators (Tay et al. 2021).

arXiv:2011.04006; its `data/listops.py`. The root is an operator, or the tree is not used; below it a node is an
operator with probability 1/4 down to depth 9, otherwise, and always at depth 10, a digit, uniform on 0 … 9. An operator
has 2 … 10 arguments, uniform, and is MIN, MAX, MED (the median, truncated) or SM (the sum modulo 10). Trees are kept
whose tokens (digits, operators and closing brackets) are more than `shortest` and fewer than `longest`; for the
published 500 and 2,000 that is one in twelve of all, of 1,038 tokens on average. Parentheses are left out, as S4's
loader does. The published set is not reproducible, its program having no seed: this is its law, with `train_rows` of
it or new rows for ever, and as there 2,000 rows each for validation and for the test, the same for every seed.

Tokens: 0 padding, 1 … 10 the digits, 11 … 14 the operators, 15 the closing bracket. Rows are padded to `length`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import ClassVar, NamedTuple

import numpy as np

from data import draws, pipeline
from data.generated import EVAL_SEED, Sampled
from data.pipeline import Batch

DIGIT, MIN, MAX, MED, SM, CLOSE = 1, 11, 12, 13, 14, 15
DEEPEST, OPERATOR_SHARE, FEWEST, MOST = 10, 0.25, 2, 10
# trees tried for each row at once, a third of which have a fitting length at the published bounds
TRIES = 8
# rows whose trees are grown together, which bounds the memory
TOGETHER = 64


class Level(NamedTuple):
  """The nodes of one depth, the children of a node side by side."""

  tree: np.ndarray  # which tree a node is in
  parent: np.ndarray  # place of its parent in the level above
  operator: np.ndarray  # bool
  symbol: np.ndarray  # token


@dataclasses.dataclass(frozen=True)
class ListOps(Sampled):
  """Classify an expression by its value.

  Attributes:
    length: tokens of a padded row.
    shortest, longest: bounds of the tokens of an expression, both excluded.
    train_rows: rows of the training set, visited in order again and again; 0 makes new ones for ever.
  Raises:
    Mistake: the bounds leave no length, or one that `length` has no room for.
  """

  batch: int = 32
  length: int = 2048
  vocab: int = 16
  eval_rows: int = 2000
  shortest: int = 500
  longest: int = 2000
  train_rows: int = 96000

  head: ClassVar[str] = "classifier"
  classes: ClassVar[int | None] = 10

  def __post_init__(self) -> None:
    self.require_sizes()
    self.require("vocab", self.vocab >= 16, "at least 16 (padding, digits, operators, closing bracket)")
    self.require("shortest", self.shortest >= 3, "at least 3, below which there is no expression")
    fits = self.shortest + 50 <= self.longest <= self.length + 1
    self.require("longest", fits, f"from shortest + 50 = {self.shortest + 50} to data.length + 1 = {self.length + 1}")
    self.require("train_rows", self.train_rows >= 0, "at least 1, or 0 for new rows for ever")

  def training_rows(self, first: int, rows: int) -> Batch:
    """Returns rows of the training stream, which repeats after `train_rows` if that is set."""
    if not self.train_rows:
      return super().training_rows(first, rows)
    start, parts = first % self.train_rows, []
    while rows:
      count = min(rows, self.train_rows - start)
      parts.append(self.sample(self.seed, "train", start, count))
      start, rows = 0, rows - count
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

  def eval_sets(self, process_index: int = 0, process_count: int = 1) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns 'validation' and 'test', each of `eval_rows` rows."""
    rows = lambda split: functools.partial(self.sample, EVAL_SEED, split)
    return {
      split: pipeline.InOrder(rows(split), self.eval_rows, self.batch, process_index, process_count)
      for split in ("validation", "test")
    }

  def sample(self, seed: int, stream: str, first: int, rows: int) -> Batch:
    """Returns `rows` rows of one stream: for each, the first of its trees that has a fitting length."""
    inputs = np.zeros((rows, self.length), np.int32)
    targets, lengths = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
    width = 3 * self.longest
    trial, name = 0, f"listops/{stream}"
    todo = [slice(start, min(start + TOGETHER, rows)) for start in range(0, rows, TOGETHER)]
    while todo:
      for part in todo:
        u = draws.bits(seed, f"{name}/{trial}", (first + part.start) * TRIES, (part.stop - part.start) * TRIES, width)
        tokens, values, sizes = expressions(u, self.longest)
        fits = ((sizes > self.shortest) & (sizes < self.longest)).reshape(-1, TRIES)
        chosen = np.flatnonzero(fits.any(1))
        tree = chosen * TRIES + np.argmax(fits, axis=1)[chosen]
        row = part.start + chosen
        inputs[row, : self.longest - 1] = tokens[tree, :-1]
        targets[row], lengths[row] = values[tree], sizes[tree]
      # a row draws its own trees, whether or not others of its batch still need one
      todo, trial = [slice(row, row + 1) for row in np.flatnonzero(lengths == 0).tolist()], trial + 1
    return {"inputs": inputs, "targets": targets, "weights": np.ones(rows, np.float32), "lengths": lengths}


def expressions(u: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Makes trees with an operator at the root, one a row of uint32 `u`: tokens "rows most", values and sizes.

  A row has three numbers for each of up to `most` nodes. A tree of more nodes is given up: its size is 0.
  """
  levels, complete = grow(u, most)
  sizes, values = measure(levels)
  whole = np.where(complete, np.bincount(levels[0].tree, sizes[0], len(u)), 0).astype(np.int32)
  whole = np.where(whole < most, whole, 0)
  tokens = np.zeros((len(u), most), np.int32)
  starts = np.zeros(len(u), np.int64)
  for level, size in zip(levels, sizes):
    if level is not levels[0]:
      starts = positions(level, size, starts)
    valid = whole[level.tree] > 0
    tree, start = level.tree[valid], starts[valid]
    tokens[tree, start] = level.symbol[valid]
    ends = level.operator[valid]
    tokens[tree[ends], start[ends] + size[valid][ends] - 1] = CLOSE
  return tokens, values[0].astype(np.int32), whole


def grow(u: np.ndarray, most: int) -> tuple[list[Level], np.ndarray]:
  """Returns the levels of the trees from the roots down, and which trees have at most `most` nodes."""
  rows = len(u)
  tree, parent = np.arange(rows), np.zeros(rows, int)
  used, complete, levels = np.zeros(rows, int), np.ones(rows, bool), []
  for depth in range(1, DEEPEST + 1):
    # which of its tree's nodes each is, in the order of the levels; the nodes of a tree stand side by side
    count = np.bincount(tree, minlength=rows)
    number = used[tree] + np.arange(len(tree)) - (np.cumsum(count) - count)[tree]
    used += count
    complete &= used <= most
    number = np.minimum(number, most - 1)
    kind, choice, sign = (u[tree, 3 * number + i] for i in range(3))
    inner = (depth == 1) | (draws.unit(kind) <= OPERATOR_SHARE) if depth < DEEPEST else np.zeros(len(tree), bool)
    inner = inner & complete[tree]
    symbol = np.where(inner, MIN + draws.below(sign, 4), DIGIT + draws.below(choice, 10))
    levels.append(Level(tree, parent, inner, symbol))
    parent = np.repeat(np.arange(len(tree)), np.where(inner, FEWEST + draws.below(choice, MOST - FEWEST + 1), 0))
    tree = tree[parent]
    if not len(tree):
      break
  return levels, complete


def measure(levels: list[Level]) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """Returns the number of tokens and the value below each node, from the leaves up."""
  sizes: list[np.ndarray] = []
  values: list[np.ndarray] = []
  below: tuple[Level, np.ndarray, np.ndarray] | None = None
  for level in reversed(levels):
    size, value = np.where(level.operator, 2, 1), np.where(level.operator, 0, level.symbol - DIGIT)
    if below is not None and len(below[0].tree):
      size = size + np.bincount(below[0].parent, below[1], len(size)).astype(int)
      value[level.operator] = apply(level.symbol[level.operator], below[0].parent, below[2])
    below = level, size, value
    sizes.insert(0, size)
    values.insert(0, value)
  return sizes, values


def apply(operators: np.ndarray, parent: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Returns the value of each operator; its arguments are those `values` that share a `parent`, side by side."""
  order = np.lexsort((values, parent))
  ranked = values[order]
  start = np.flatnonzero(np.diff(parent, prepend=-1))
  count = np.diff(start, append=len(parent))
  middle = ranked[start + (count - 1) // 2] + ranked[start + count // 2]
  results = {
    MIN: ranked[start],
    MAX: ranked[start + count - 1],
    MED: middle // 2,
    SM: np.add.reduceat(values, start) % 10,
  }
  return np.select([operators == operator for operator in results], list(results.values()))


def positions(level: Level, size: np.ndarray, above: np.ndarray) -> np.ndarray:
  """Returns where each node begins in its expression: after its parent's operator and the siblings before it."""
  before = np.cumsum(size) - size
  first = np.flatnonzero(np.diff(level.parent, prepend=-1))
  siblings = before - np.repeat(before[first], np.diff(first, append=len(size)))
  return above[level.parent] + 1 + siblings
