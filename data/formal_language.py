"""Formal languages of the Chomsky hierarchy: read a string, then write another (Delétang et al. 2023).

arXiv:2207.02098. A row is a question of n tokens and then as many blanks as the answer has tokens: at each blank one of
those is to be predicted, which is all that is scored. Questions of sizes up to 40 are trained on, larger ones asked, as
there. Tokens: 0 padding, 1 the blank, then the symbols of the language; an answer that is shorter than its blanks ends
in the symbol `end`, and what follows that is not scored. data/languages.py has the languages.

Departs: sizes are uniform among those a language has, so that no question is cut or padded to fit.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from data import draws
from data.generated import EVAL_SEED, Generated, length_sets
from data.languages import LANGUAGES, Language
from data.pipeline import Batch
from mistake import hint

PADDING, BLANK, SYMBOL = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class FormalLanguage(Generated):
  """Answer questions of one of the languages of data.languages.LANGUAGES.

  Attributes:
    length: tokens of a training row, blanks included; 0 for what `longest` takes.
    vocab: 0 for what the language has.
    shortest, longest: sizes of training questions.
    eval_sizes: rows of (smallest, largest size), one evaluation set 'size_SMALLEST_LARGEST' each.
  Raises:
    Mistake: there is no such language, or it has no question of a size that is asked for.
  """

  batch: int = 128
  length: int = 0
  vocab: int = 0
  eval_rows: int = 512
  language: str = "parity"
  shortest: int = 1
  longest: int = 40
  eval_sizes: tuple[tuple[int, int], ...] = ((1, 40), (41, 100))

  def __post_init__(self) -> None:
    self.require_sizes()
    known = self.language in LANGUAGES
    self.require("language", known, f"choose from {list(LANGUAGES)}{'' if known else hint(self.language, LANGUAGES)}")
    self.require("shortest", 1 <= self.shortest <= self.longest, f"1 … data.longest={self.longest}")
    fits = bool(self.rules.sizes(self.shortest, self.longest))
    self.require(
      "longest", fits, f"language {self.language!r} has no question of {self.shortest} … {self.longest} tokens"
    )
    fits = all(1 <= low <= high and self.rules.sizes(low, high) for low, high in self.eval_sizes)
    self.require("eval_sizes", bool(self.eval_sizes) and fits, "rows (smallest, largest), with a question each")
    if self.length == 0:
      object.__setattr__(self, "length", self.width(self.longest))
    if self.vocab == 0:
      object.__setattr__(self, "vocab", SYMBOL + self.rules.symbols)
    self.require(
      "length", self.length >= self.width(self.longest), f"at least {self.width(self.longest)}, or 0 for that"
    )
    self.require("vocab", self.vocab >= SYMBOL + self.rules.symbols, f"at least {SYMBOL + self.rules.symbols}")

  @property
  def rules(self) -> Language:
    """Returns the language's alphabet and functions."""
    return LANGUAGES[self.language]

  def width(self, largest: int) -> int:
    """Returns how many tokens a row takes for questions of up to `largest` tokens."""
    return max(n + self.rules.answer(n) for n in self.rules.sizes(1, largest))

  def training_rows(self, first: int, rows: int) -> Batch:
    """Returns rows of the endless training stream; see `Generated.training_rows`."""
    return self.sample((self.shortest, self.longest), self.seed, "train", first, rows, self.length)

  def validation_rows(self, first: int, rows: int) -> Batch:
    """Returns validation rows of the training sizes; see `Generated.validation_rows`."""
    return self.evaluation_rows((self.shortest, self.longest), first, rows)

  def evaluation_rows(self, span: tuple[int, int], first: int, rows: int) -> Batch:
    """Returns rows of the fixed evaluation set of one range of sizes."""
    return self.sample(span, EVAL_SEED, f"validation/{span[0]}/{span[1]}", first, rows, self.width(span[1]))

  def eval_sets(self, process_index: int = 0, process_count: int = 1) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns a set 'size_SMALLEST_LARGEST' for each of `eval_sizes`."""
    sets = {f"size_{low}_{high}": ((low, high), self.width(high)) for low, high in self.eval_sizes}
    budget = self.eval_rows * max(width for _, width in sets.values())
    return length_sets(self.evaluation_rows, sets, self, budget, process_index, process_count)

  def sample(self, span: tuple[int, int], seed: int, stream: str, first: int, rows: int, length: int) -> Batch:
    """Returns `rows` rows of one stream, of sizes in `span`."""
    rules, choices = self.rules, np.asarray(self.rules.sizes(*span))
    u = draws.bits(seed, f"formal_language/{self.language}/{stream}", first, rows, 3 + 2 * int(choices[-1]))
    sizes = choices[draws.below(u[:, 0], len(choices))]
    inputs, targets = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.int32)
    weights, lengths = np.zeros((rows, length), np.float32), np.zeros(rows, np.int32)
    # rows of one size are made together
    for n in np.unique(sizes):
      rows_of_size = np.flatnonzero(sizes == n)
      question, answer = rules.make(u[rows_of_size, 1 : 3 + 2 * n], int(n))
      m = answer.shape[1]
      inputs[rows_of_size, :n], inputs[rows_of_size, n : n + m] = SYMBOL + question, BLANK
      targets[rows_of_size, n : n + m] = SYMBOL + np.maximum(answer, 0)
      weights[rows_of_size, n : n + m] = answer >= 0
      lengths[rows_of_size] = n + m
    targets[weights == 0] = PADDING
    return {"inputs": inputs, "targets": targets, "weights": weights, "lengths": lengths}
