"""RegBench: strings of a random regular language, a new one in each row (Akyürek et al. 2024, arXiv:2401.12973).

By the code of the paper (seq_icl, `dfa.py`): an automaton has 2 … 11 states, and as many symbols, different ones of
the vocabulary. Each state has 1 … min(4, states) - 1 edges with different symbols to states that are uniform with
replacement. A string of 0 … 49 symbols starts at state 0 and takes each edge of a state equally often. A row is
10 … 19 strings of one automaton, a separator between them, cut at `length`. Every next token is scored, and no model
has a smaller loss than the mean over symbols of the log of the number of edges, without the separators.

Tokens: 0 padding, 1 the separator, then the symbols. Departs: symbols are single tokens also above 9, which theirs
writes as two digits.
"""

import dataclasses
import functools

import numpy as np

from data import draws, pipeline
from data.generated import Sampled, whole
from data.pipeline import Batch
from data.ragged import packed_left

SEPARATOR, SYMBOL = 1, 2
LONGEST_STRING = 50


@dataclasses.dataclass(frozen=True)
class RegBench(Sampled):
  """Predict the next token of a language that is known from its strings alone.

  Attributes:
    states: automata have 2 … states - 1 of them.
    edges: states have 1 … edges - 1 of them, fewer than the automaton has symbols.
    strings: rows of (fewest, most + 1) strings.
    train_rows: automata of the training set, one row each, in a new order each epoch; 0 for new ones for ever.
  Raises:
    Mistake: a range is empty, or the vocabulary has fewer symbols than automata have states.
  """

  batch: int = 32
  length: int = 1024
  vocab: int = 20
  eval_rows: int = 500
  states: int = 12
  edges: int = 4
  strings: tuple[int, int] = (10, 20)
  train_rows: int = 5000

  def __post_init__(self) -> None:
    self.require_sizes()
    self.require("length", self.length >= 2, "at least 2")
    self.require("states", self.states >= 3, "at least 3, for automata of 2 states")
    self.require("edges", self.edges >= 2, "at least 2, for one edge")
    self.require("vocab", self.vocab - SYMBOL >= self.states - 1, f"at least states + 1 = {self.states + 1}")
    self.require("strings", 1 <= self.strings[0] < self.strings[1], "(fewest, most + 1), at least one string")
    self.require("train_rows", self.train_rows >= 0, "at least 1, or 0 for new automata for ever")

  def training_rows(self, first: int, rows: int) -> Batch:
    """Returns rows of the training stream: epochs of the training set, or new rows; see `Generated.training_rows`."""
    if not self.train_rows:
      return super().training_rows(first, rows)
    numbers = pipeline.shuffled(self.seed, "regbench/order", first, rows, self.train_rows)
    return {key: x[numbers] for key, x in self.training_set.items()}

  @functools.cached_property
  def training_set(self) -> Batch:
    """Makes all rows of the training set."""
    return whole(functools.partial(self.sample, self.seed, "train"), self.train_rows)

  def sample(self, seed: int, stream: str, first: int, rows: int) -> Batch:
    """Returns `rows` rows of one stream."""
    most = self.strings[1] - 1
    u = draws.bits(seed, f"regbench/{stream}", first, rows, 1 + most + (self.length + 1) + self._automaton_draws)
    many = self.strings[0] + draws.below(u[:, 0], self.strings[1] - self.strings[0])
    sizes = draws.below(u[:, 1 : 1 + most], LONGEST_STRING)
    # a separator after each string but the last; what is beyond the length and one target is not drawn
    ends = np.cumsum(sizes + 1, axis=1) - 1
    position = np.arange(self.length + 1)
    is_separator = np.zeros((rows, ends.max() + 2 + self.length), bool)
    np.put_along_axis(is_separator, ends, True, axis=1)
    is_separator = is_separator[:, : self.length + 1]
    total = np.take_along_axis(ends, many[:, None] - 1, axis=1)
    symbols = self._walk(u[:, -self._automaton_draws :], u[:, 1 + most : 2 + most + self.length], is_separator)
    tokens, _ = packed_left(np.where(is_separator, SEPARATOR, symbols), position < total, self.length + 1)
    scored = position[1:] < total
    return {
      "inputs": np.ascontiguousarray(tokens[:, :-1]),
      "targets": np.ascontiguousarray(tokens[:, 1:]),
      "weights": scored.astype(np.float32),
      "lengths": np.minimum(total[:, 0], self.length).astype(np.int32),
    }

  @property
  def _automaton_draws(self) -> int:
    nodes = self.states - 1
    return 1 + nodes + nodes + 2 * nodes * (self.edges - 1)

  def _walk(self, u: np.ndarray, choices: np.ndarray, is_separator: np.ndarray) -> np.ndarray:
    """Returns the symbol at each position, from the automaton of each row; a separator goes back to state 0."""
    many, symbol, target = self.automata(u)
    row, state = np.arange(len(u)), np.zeros(len(u), int)
    out = np.zeros(is_separator.shape, np.int32)
    for t in range(is_separator.shape[1]):
      edge = draws.below(choices[:, t], many[row, state])
      out[:, t] = symbol[row, state, edge]
      state = np.where(is_separator[:, t], 0, target[row, state, edge])
    return out

  def automata(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns edges of each state "rows states", and their tokens and ends "rows states edges"."""
    rows, nodes, most = len(u), self.states - 1, self.edges - 1
    size = 2 + draws.below(u[:, 0], nodes - 1)
    alphabet = SYMBOL + draws.distinct(u[:, 1 : 1 + nodes], self.vocab - SYMBOL)
    limit = np.minimum(self.edges, size)[:, None]
    many = 1 + draws.below(u[:, 1 + nodes : 1 + 2 * nodes], limit - 1)
    drawn = u[:, 1 + 2 * nodes :].reshape(rows * nodes, 2, most)
    every = np.repeat(size, nodes)
    # an automaton of few states has fewer edges, the others are never taken
    pick = draws.distinct_below(drawn[:, 0], every) % every[:, None]
    target = draws.below(drawn[:, 1], every[:, None])
    symbol = alphabet[np.arange(rows).repeat(nodes)[:, None], pick]
    return many, symbol.reshape(rows, nodes, most), target.reshape(rows, nodes, most)
