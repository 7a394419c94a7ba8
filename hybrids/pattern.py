"""Patterns: strings of one letter a layer, repeated until they are as long as the model is deep.

`program` turns the letters of all layers into loops: compile time then grows with the kinds of layers, not the depth.
"""

import functools
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mistake import Mistake


def tile(pattern: str, depth: int) -> str:
  """Repeats `pattern` and cuts it to `depth` letters: tile("mma", 5) is "mmamm".

  Raises:
    ValueError: the pattern is empty, or `depth` is below 1.
  """
  if not pattern:
    raise Mistake("pattern '' is empty; give one letter a layer, e.g. 'm' or 'm-a-'")
  if depth < 1:
    raise Mistake(f"depth={depth}: a stack has at least 1 layer (depth counts the letters of the pattern)")
  return (pattern * -(-depth // len(pattern)))[:depth]


def describe(pattern: str, depth: int, names: Mapping[str, str]) -> str:
  """Counts the layers of each mixer of a model, for people: 'depth 4: 2 mamba, 2 mlp', and what of the pattern is cut.

  Args:
    names: the mixer of each letter.
  """
  letters = tile(pattern, depth)
  count = Counter(names[letter] for letter in letters)
  rest = letters[len(letters) - depth % len(pattern) :]
  cut = f"; the last repetition of the pattern {pattern} is cut to {rest}" if rest else ""
  return f"depth {depth}: {', '.join(f'{many} {name}' for name, many in count.items())}{cut}"


def check(pattern: str, letters: Iterable[str]) -> None:
  """Checks that every letter of the pattern is defined, and that what is defined is letters.

  Raises:
    ValueError: otherwise.
  """
  defined = sorted(letters)
  long = [name for name in defined if len(name) != 1 or name in "/."]
  if long:
    raise Mistake(f"letters defines {long}: each name is one letter of the pattern, e.g. 'm', and neither / nor .")
  unknown = sorted(set(pattern) - set(defined))
  if unknown:
    raise Mistake(f"pattern {pattern!r} uses {unknown}, but letters defines {defined}")


class Loop(NamedTuple):
  """A part of a program that runs several times."""

  times: int
  body: tuple  # of layers and loops


def program(layers: Sequence[Hashable]) -> tuple:
  """Loops that run equal layers in the given order, with as few layers written out as possible.

  program("mmmammma") is (Loop(2, (Loop(3, ("m",)), "a")),): of eight layers two are written out.
  """
  return _program(tuple(layers))


@functools.cache
def _program(layers: tuple) -> tuple:
  # best[i][j]: what layers[i:j] costs, and how it is cut (an index) or repeated (a negative period)
  n = len(layers)
  alike = _alike(layers)
  cost = [[(0, 0)] * (n + 1) for _ in range(n + 1)]
  how = [[0] * (n + 1) for _ in range(n + 1)]
  for size in range(1, n + 1):
    for i in range(n - size + 1):
      j = i + size
      if size == 1:
        cost[i][j] = (1, 0)
        continue
      from_i = cost[i]
      best, cut = min(((from_i[k][0] + cost[k][j][0], from_i[k][1] + cost[k][j][1]), k) for k in range(i + 1, j))
      for period in range(1, size // 2 + 1):
        if size % period == 0 and alike[period][i] >= size - period:
          looped = (from_i[i + period][0], from_i[i + period][1] + 1)
          if looped < best:
            best, cut = looped, -period
      cost[i][j], how[i][j] = best, cut

  def build(i: int, j: int) -> tuple:
    if j - i == 1:
      return (layers[i],)
    cut = how[i][j]
    return (Loop((j - i) // -cut, build(i, i - cut)),) if cut < 0 else build(i, cut) + build(cut, j)

  return build(0, n)


def _alike(layers: tuple) -> list[list[int]]:
  """Returns for each period p and index i how many indices from i on have layers[k] equal to layers[k + p]."""
  n = len(layers)
  alike = [[0] * (n + 1) for _ in range(n + 1)]
  for p in range(1, n):
    for i in range(n - p - 1, -1, -1):
      alike[p][i] = alike[p][i + 1] + 1 if layers[i] == layers[i + p] else 0
  return alike


def count(items: Iterable[Any], layer: Hashable) -> int:
  """Returns how many times a program runs a layer."""
  return sum(item.times * count(item.body, layer) if isinstance(item, Loop) else item == layer for item in items)


def size(items: Iterable[Any]) -> int:
  """Returns how many layers a program runs."""
  return sum(item.times * size(item.body) if isinstance(item, Loop) else 1 for item in items)


def written(items: Iterable[Any]) -> Iterator[Hashable]:
  """Returns the layers that a program writes out, in order."""
  for item in items:
    if isinstance(item, Loop):
      yield from written(item.body)
    else:
      yield item
