"""Word problems of finite groups: the product of the elements read so far.

Merrill, Petty & Sabharwal 2024, arXiv:2404.08819; sequences of elements, iid and uniform, and at each the product of
all up to it. Solvable groups (Z60, S3) lie in TC0; A5 and S5 are complete for NC1, so that a fixed number of
transformers' or diagonal state space layers solves them up to some length only. An element's token is one above its
number, 0 pads.
"""

import dataclasses
import functools
import itertools
import re

import numpy as np

from data import draws
from data.state_tracking import StateTracking

# products are looked up in a table of order x order
LARGEST = 2520


@dataclasses.dataclass(frozen=True)
class WordProblem(StateTracking):
  """Multiply elements of a group. Every size from 1 exists; the product so far is known at every token.

  Attributes:
    group: permutations S3, S4 …, the even ones A3, A4 …, sums modulo a number Z2, Z60 …, and direct products, A4xZ5.
    vocab: 0 for one more than the group has elements.
  Raises:
    Mistake: the group is none of these or too large, or the vocabulary has no token for some element.
  """

  length: int = 128
  vocab: int = 0
  group: str = "S5"
  score: str = "all"
  eval_sizes: tuple[tuple[int, int], ...] = ((128, 128), (512, 512))

  def __post_init__(self) -> None:
    order = group_order(self.group)
    fits = order is not None and order <= LARGEST
    self.require("group", fits, f"S, A or Z and a number, or such names joined by x, of at most {LARGEST} elements")
    if self.vocab == 0:
      object.__setattr__(self, "vocab", 1 + (order or 0))
    self.require("vocab", self.vocab > (order or 0), f"above the {order} elements of {self.group}, or 0 for the least")
    self.require_range()

  def sizes(self, low: int, high: int) -> np.ndarray:
    """Returns all sizes in low … high; see `StateTracking.sizes`."""
    return np.arange(low, high + 1)

  def numbers(self, width: int) -> int:
    """Returns one random number a token; see `StateTracking.numbers`."""
    return width

  def questions(self, u: np.ndarray, sizes: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws elements and their products; a, then b, is a b, which as permutations is b after a."""
    table = multiplication(self.group)
    elements = draws.below(u, len(table))
    products = np.empty_like(elements)
    # the first of each row by itself, then one product a token
    products[:, 0] = elements[:, 0]
    for t in range(1, width):
      products[:, t] = table[products[:, t - 1], elements[:, t]]
    return elements + 1, products + 1


def group_order(name: str) -> int | None:
  """Returns how many elements a group has, or None where there is no group of that name."""
  order = 1
  for part in name.split("x"):
    match = re.fullmatch(r"([SAZ])([1-9]\d{0,3})", part)
    if not match:
      return None
    kind, n = match[1], int(match[2])
    if kind == "Z":
      order *= n
    else:
      for i in range(2, min(n, 10) + 1):
        order *= i
      order = order // 2 if kind == "A" and n > 1 else order
  return order


@functools.lru_cache(maxsize=4)
def multiplication(name: str) -> np.ndarray:
  """Returns the table of products of a group's elements, of which 0 is the neutral one."""
  table = np.zeros((1, 1), np.int32)
  for part in name.split("x"):
    kind, n = part[0], int(part[1:])
    right = _sums(n) if kind == "Z" else _permutations(n, even=kind == "A")
    pairs = table[:, None, :, None] * len(right) + right[None, :, None, :]
    table = pairs.reshape(len(table) * len(right), -1)
  return table


def _sums(n: int) -> np.ndarray:
  return ((np.arange(n)[:, None] + np.arange(n)) % n).astype(np.int32)


def _permutations(n: int, *, even: bool) -> np.ndarray:
  elements = np.array(list(itertools.permutations(range(n))))
  if even:
    inversions = sum((elements[:, i] > elements[:, j]).astype(int) for i in range(n) for j in range(i + 1, n))
    elements = elements[np.asarray(inversions) % 2 == 0]
  # elements are in lexicographic order, so that a product is found by its digits
  digits = n ** np.arange(n)[::-1]
  products = elements[:, elements].transpose(1, 0, 2)
  return np.searchsorted(elements @ digits, products @ digits).astype(np.int32)
