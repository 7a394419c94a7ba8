"""Patterns: strings of one letter a layer, repeated until they are as long as the model is deep."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mistake import Mistake


def tile(pattern: str, depth: int) -> str:
  """`pattern` repeated and cut to `depth` letters: tile("mma", 5) is "mmamm".

  Raises:
    ValueError: the pattern is empty, or `depth` is below 1.
  """
  if not pattern:
    raise Mistake("pattern '' is empty; give one letter a mixer, e.g. 'm' or 'm-a-'")
  if depth < 1:
    raise Mistake(f"depth={depth}: a stack has at least 1 layer (depth counts the letters of the pattern)")
  return (pattern * -(-depth // len(pattern)))[:depth]


def describe(pattern: str, depth: int, names: Mapping[str, str]) -> str:
  """How many layers of each mixer a model has, for people: 'depth 4: 2 mamba, 2 mlp', and what of the pattern is cut.

  Args:
    names: the mixer of each letter.
  """
  letters = tile(pattern, depth)
  count = Counter(names[letter] for letter in letters)
  rest = letters[len(letters) - depth % len(pattern) :]
  cut = f"; the last repetition of the pattern {pattern} is cut to {rest}" if rest else ""
  return f"depth {depth}: {', '.join(f'{many} {name}' for name, many in count.items())}{cut}"


def check(pattern: str, mixers: Iterable[str]) -> None:
  """That every letter has a mixer, and every mixer's name is a letter.

  Raises:
    ValueError: otherwise.
  """
  defined = sorted(mixers)
  long = [name for name in defined if len(name) != 1]
  if long:
    raise Mistake(f"mixers defines {long}: each name is one letter of the pattern, e.g. 'm'")
  unknown = sorted(set(pattern) - set(defined))
  if unknown:
    raise Mistake(f"pattern {pattern!r} uses {unknown}, but mixers defines {defined}")


def period(letters: str) -> int:
  """The smallest p with letters[i] == letters[i - p] for every i >= p: 3 for "mmammam" cut from "mma"."""
  return next(p for p in range(1, len(letters) + 1) if letters[p:] == letters[:-p] or p == len(letters))


class Layout(NamedTuple):
  """How a stack runs its layers: `first` one by one, then `groups` times `period` in one loop, then the rest."""

  letters: str
  first: int
  period: int
  groups: int

  @property
  def scanned(self) -> range:
    """The layers in the loop."""
    return range(self.first, self.first + self.period * self.groups)

  def group_of(self, layer: int) -> int:
    """The iteration in which a layer of the loop runs."""
    return (layer - self.first) // self.period


def layout(letters: str, *, offers: bool = False) -> Layout:
  """The layout of a stack, with as many layers as possible in the loop; none where nothing repeats.

  Args:
    offers: a mixer offers arrays to the layers after it. Then the first group stays out of the loop: only there can an
      offered name be new.
  """
  size = period(letters)
  first = size if offers else 0
  groups = (len(letters) - first) // size
  return Layout(letters, first, size, groups) if groups > 1 else Layout(letters, 0, size, 0)
