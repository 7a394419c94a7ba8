"""Phonebook: many names with their numbers, then the number of one of them (Jelassi et al. 2024, arXiv:2402.01032).

A row of bytes is `entries` lines "First Last: 6035551234" with distinct names and ten digits each, the first of them 6
… 9; two of the lines again, as examples; then a third one, whose number is asked for: its digits alone are scored. With
`asked="start"` the name stands before the book as well (Waleffe et al. 2024, arXiv:2406.07887), so that a model knows
what to keep.

Departs: the names are ours, 64 first and 64 last ones, so that 4,096 entries fit.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from data import draws
from data.generated import EVAL_SEED, Generated, length_sets
from data.pipeline import Batch
from data.ragged import packed_left, table

FIRST_NAMES = (
  "Ada Alma Amir Anna Aram Bela Bina Boris Carla Chen Clara Dario Dina Edda Elif Emil Enzo Erik Eva Farid Fiona "
  "Gita Goran Greta Hana Hugo Ida Ines Iris Ivan Jana Joan Jonas Kaito Karim Kira Lars Lena Leo Lior Luca Maja "
  "Marco Mila Mona Nadia Nils Noor Olga Omar Otto Paula Pavel Petra Rafi Ravi Rosa Samir Sara Tariq Tessa Tomas "
  "Vera Yuki"
)
LAST_NAMES = (
  "Abadi Adler Aoki Arends Bauer Becker Berg Bianchi Blanc Bloom Brandt Castro Cohen Conti Costa Dahl Diaz Dorn "
  "Ekman Engel Faber Ferrari Fischer Flores Gallo Garcia Green Gupta Haas Hansen Hoffman Ito Jansen Jensen Kato "
  "Keller Khan Klein Kovacs Lang Larsen Lopez Mancini Marin Meyer Mori Nagy Novak Olsen Ortiz Park Petrov Ricci "
  "Romano Santos Sato Silva Singh Tanaka Varga Vogel Weber Wood Zhang"
)
FIRST, LAST = FIRST_NAMES.split(), LAST_NAMES.split()
DIGITS = 10
ASKED = ("end", "start")
EXAMPLES = 2
# lines that are written twice: the examples, and the one asked for
TWICE = EXAMPLES + 1


@dataclasses.dataclass(frozen=True)
class Phonebook(Generated):
  """Look up numbers in a text of bytes, padded.

  Attributes:
    length: bytes of a padded row; 0 for what the longest names take.
    entries: lines of the book.
    shortest: training books have `shortest` … `entries` lines, uniformly; 0 for always `entries`.
    asked: where the name asked for stands: 'end', or 'start' for both ends.
    eval_entries: one evaluation set 'entries_N' each; without any, data.entries.
  Raises:
    Mistake: a book has fewer lines than the examples need or more than there are names, or rows have no room for it.
  """

  batch: int = 16
  length: int = 0
  vocab: int = 256
  eval_rows: int = 256
  entries: int = 20
  shortest: int = 0
  asked: str = "end"
  eval_entries: tuple[int, ...] = ()

  def __post_init__(self) -> None:
    self.require_sizes()
    self.require("vocab", self.vocab >= 128, "at least 128 (the text is ASCII)")
    self.require("asked", self.asked in ASKED, f"choose from {ASKED}")
    most = len(FIRST) * len(LAST)
    for field, values in (("entries", (self.entries,)), ("eval_entries", self.eval_entries)):
      self.require(field, all(TWICE <= n <= most for n in values), f"{TWICE} … {most} lines")
    fits = self.shortest == 0 or TWICE <= self.shortest <= self.entries
    self.require("shortest", fits, f"{TWICE} … data.entries={self.entries}, or 0 for always that many")
    if self.length == 0:
      object.__setattr__(self, "length", room(self.entries, self.asked))
    self.require("length", self.length >= room(self.entries, self.asked), f"at least {room(self.entries, self.asked)}")

  def training_rows(self, first: int, rows: int) -> Batch:
    """Returns rows of the endless training stream; see `Generated.training_rows`."""
    return self.sample(self.seed, "train", first, rows, self.entries, self.shortest or self.entries, self.length)

  def validation_rows(self, first: int, rows: int) -> Batch:
    """Returns validation rows of `entries` lines; see `Generated.validation_rows`."""
    return self.evaluation_rows(self.entries, first, rows)

  def evaluation_rows(self, entries: int, first: int, rows: int) -> Batch:
    """Returns rows of the fixed evaluation set of one number of lines."""
    length = max(room(entries, self.asked), self.length if entries == self.entries else 0)
    return self.sample(EVAL_SEED, f"validation/{entries}", first, rows, entries, entries, length)

  def eval_sets(self, process_index: int = 0, process_count: int = 1) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns a set 'entries_N' for each of `eval_entries`."""
    many = self.eval_entries or (self.entries,)
    sets = {f"entries_{n}": (n, room(n, self.asked)) for n in many}
    budget = self.eval_rows * room(max(many), self.asked)
    return length_sets(self.evaluation_rows, sets, self, budget, process_index, process_count)

  def sample(self, seed: int, stream: str, first: int, rows: int, entries: int, shortest: int, length: int) -> Batch:
    """Returns `rows` rows of one stream, of `shortest` … `entries` lines."""
    u = draws.bits(seed, f"phonebook/{stream}", first, rows, entries * (1 + DIGITS) + 2 + EXAMPLES)
    many = shortest + draws.below(u[:, 0], entries - shortest + 1)
    persons = draws.distinct(u[:, 2 + EXAMPLES : 2 + EXAMPLES + entries], len(FIRST) * len(LAST))
    numbers = draws.below(u[:, 2 + EXAMPLES + entries :].reshape(rows, entries, DIGITS), 10)
    numbers[..., 0] = 6 + draws.below(u[:, 2 + EXAMPLES + entries :: DIGITS], 4)
    again = draws.distinct_below(u[:, 1 : 2 + EXAMPLES], many)
    # the book, then the lines of the examples and of the question
    which = np.concatenate([np.tile(np.arange(entries), (rows, 1)), again], axis=1)
    lines = written(np.take_along_axis(persons, which, axis=1), np.take_along_axis(numbers, which[..., None], axis=1))
    valid = (lines > 0) & (which_lines(entries) | (np.arange(which.shape[1]) < many[:, None]))[..., None]
    # no new line after the answer
    valid[:, -1, lines.shape[2] - 1] = False
    if self.asked == "start":
      name = lines[:, -1:].copy()
      name[..., -1 - DIGITS : -1] = 0
      lines, valid = np.concatenate([name, lines], axis=1), np.concatenate([name > 0, valid], axis=1)
    text, sizes = packed_left(lines, valid, length)
    inputs = np.concatenate([np.full((rows, 1), ord("\n")), text[:, :-1]], axis=1).astype(np.int32)
    position = np.arange(length)
    scored = (position < sizes[:, None]) & (position >= sizes[:, None] - DIGITS)
    inputs[position >= sizes[:, None]] = 0
    return {"inputs": inputs, "targets": text, "weights": scored.astype(np.float32), "lengths": sizes}


def which_lines(entries: int) -> np.ndarray:
  """Returns which of all lines come after the book: bool `1 lines`."""
  return np.arange(entries + EXAMPLES + 1)[None] >= entries


def written(persons: np.ndarray, numbers: np.ndarray) -> np.ndarray:
  """Writes lines `rows lines bytes`: name, colon, blank, digits, new line; 0 fills the gap of a shorter name."""
  first, last = table([f"{name} ".encode() for name in FIRST]), table([f"{name}: ".encode() for name in LAST])
  end = np.full((*persons.shape, 1), ord("\n"))
  parts = [first[persons // len(LAST)], last[persons % len(LAST)], ord("0") + numbers, end]
  return np.concatenate(parts, axis=-1).astype(np.uint8)


def room(entries: int, asked: str) -> int:
  """Returns the bytes of a row with the longest names, which are enough for all."""
  name = max(map(len, FIRST)) + max(map(len, LAST)) + 3
  return (entries + EXAMPLES + 1) * (name + DIGITS + 1) - 1 + (name + 1 if asked == "start" else 0)
