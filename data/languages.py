"""The languages of data/formal_language.py: fifteen of Delétang et al. 2023 (arXiv:2207.02098, table 1) and three more.

Beck et al. 2024 (arXiv:2405.04517, App. D.2) add majority, majority_count and set. A language makes, of uint32 random
numbers `u` "rows 2n+2", questions of n symbols "rows n" and their answers "rows m", with -1 where nothing is asked.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data import draws
from data.modular_arithmetic import EQUALS, ModularArithmetic

Made = tuple[np.ndarray, np.ndarray]
MODULUS = 5
# symbols of the languages that xLSTM adds
MANY = 8
# after a bit, in answers that end
END = 2
# the task whose expressions with brackets are used here; its first symbol and its digits
BRACKETS, TIMES = (ModularArithmetic(vocab=7 + MODULUS, brackets=True, times=times) for times in (False, True))
ZERO, UNKNOWN = 6, 11


class Language(NamedTuple):
  """A language: how many symbols it has, the sizes of questions, the tokens of an answer, and both."""

  symbols: int
  fits: Callable[[int], bool]
  answer: Callable[[int], int]
  make: Callable[[np.ndarray, int], Made]

  def sizes(self, low: int, high: int) -> list[int]:
    """Returns the sizes of questions in low … high."""
    return [n for n in range(low, high + 1) if self.fits(n)]


def even_pairs(u: np.ndarray, n: int) -> Made:
  """Asks whether ab and ba occur an even number of times together: 1 where the first and the last bit are equal."""
  x = draws.below(u[:, :n], 2)
  return x, (x[:, :1] == x[:, -1:]).astype(np.int32)


def parity(u: np.ndarray, n: int) -> Made:
  """Asks for the sum of the bits, modulo 2."""
  x = draws.below(u[:, :n], 2)
  return x, x.sum(axis=1, keepdims=True) % 2


def cycle_navigation(u: np.ndarray, n: int) -> Made:
  """Asks where on a cycle of five one stands after steps of 0 (stay), 1 (on) and 2 (back)."""
  x = draws.below(u[:, :n], 3)
  return x, np.array([0, 1, -1])[x].sum(axis=1, keepdims=True) % MODULUS


def modular_arithmetic(u: np.ndarray, n: int) -> Made:
  """Asks for the value modulo 5 of digits 0 … 4 with + (5), - (6) and * (7) between them, * first."""
  x = np.where(np.arange(n) % 2, MODULUS + draws.below(u[:, :n], 3), draws.below(u[:, :n], MODULUS))
  total, term = np.zeros(len(x), int), x[:, 0]
  for i in range(1, n, 2):
    operator, digit = x[:, i] - MODULUS, x[:, i + 1]
    total = np.where(operator == 2, total, total + term)
    term = np.where(operator == 2, term * digit, np.where(operator == 1, -digit, digit)) % MODULUS
  return x, ((total + term) % MODULUS)[:, None]


def modular_arithmetic_brackets(u: np.ndarray, n: int) -> Made:
  """Asks for the value modulo 5 of an expression; symbols are tokens of data/modular_arithmetic.py less one."""
  tokens, answers = TIMES.questions(u, np.full(len(u), n + 1), n + 1)
  return tokens[:, :n] - 1, answers[:, n:] - 1


def solve_equation(u: np.ndarray, n: int) -> Made:
  """Asks for the digit that x (symbol 11) stands for in an equation without *, which has one solution."""
  size = n - 2
  tokens, answers = BRACKETS.questions(u[:, 1:], np.full(len(u), size + 1), size + 1)
  x = np.concatenate([tokens[:, :size], np.full((len(u), 1), EQUALS), answers[:, size:]], axis=1) - 1
  # a random place, and from there the first digit to the right, around the end
  start = draws.below(u[:, :1], size)
  around = (start + np.arange(size)) % size
  position = np.take_along_axis(
    around, np.argmax(np.take_along_axis(x, around, axis=1) >= ZERO, axis=1)[:, None], axis=1
  )
  solution = np.take_along_axis(x, position, axis=1)
  np.put_along_axis(x, position, UNKNOWN, axis=1)
  return x, solution


def stack_manipulation(u: np.ndarray, n: int) -> Made:
  """Asks for a stack from its top, given its bits from the bottom, then pops (2) and pushes of 0 (3) or 1 (4)."""
  rows, bits = np.arange(len(u)), 1 + draws.below(u[:, 0], max(n - 1, 1))
  is_bit = np.arange(n) < bits[:, None]
  x = np.where(is_bit, draws.below(u[:, 1 : n + 1], 2), 2 + draws.below(u[:, 1 : n + 1], 3))
  stack, height = np.zeros((len(u), n + 1), np.int32), np.zeros(len(u), int)
  for t in range(n):
    pops = ~is_bit[:, t] & (x[:, t] == 2)
    # a pop writes above the top, where nothing is read
    stack[rows, height] = np.where(is_bit[:, t], x[:, t], x[:, t] - 3)
    height = np.maximum(height + np.where(pops, -1, 1), 0)
  return x, ended(np.take_along_axis(stack, np.maximum(height[:, None] - 1 - np.arange(n + 1), 0), axis=1), height)


def reverse_string(u: np.ndarray, n: int) -> Made:
  """Asks for the bits from the last to the first."""
  x = draws.below(u[:, :n], 2)
  return x, x[:, ::-1]


def duplicate_string(u: np.ndarray, n: int) -> Made:
  """Asks for the bits twice."""
  x = draws.below(u[:, :n], 2)
  return x, np.concatenate([x, x], axis=1)


def missing_duplicate(u: np.ndarray, n: int) -> Made:
  """Asks for the bit that a 2 replaces in a string that is written twice."""
  half = draws.below(u[:, 1 : 1 + n // 2], 2)
  x, position = np.concatenate([half, half], axis=1), draws.below(u[:, :1], n)
  answer = np.take_along_axis(x, position, axis=1)
  np.put_along_axis(x, position, 2, axis=1)
  return x, answer


def odds_first(u: np.ndarray, n: int) -> Made:
  """Asks for the first, third, … bit, then the second, fourth, …"""
  x = draws.below(u[:, :n], 2)
  return x, np.concatenate([x[:, ::2], x[:, 1::2]], axis=1)


def binary_addition(u: np.ndarray, n: int) -> Made:
  """Asks for the sum of two numbers around a 2, all from their smallest bit; at least one of the bits of each is 1."""
  return _binary(u, n, lambda a, b: a + b)


def binary_multiplication(u: np.ndarray, n: int) -> Made:
  """Asks for the product of two numbers around a 2, as in `binary_addition`."""
  return _binary(u, n, lambda a, b: a * b)


def _binary(u: np.ndarray, n: int, combine: Callable[[int, int], int]) -> Made:
  middle = 1 + draws.below(u[:, :1], n - 2)
  x = draws.below(u[:, 1 : n + 1], 2)
  positions = np.arange(n)
  for inside, highest in ((positions < middle, middle - 1), (positions > middle, np.full_like(middle, n - 1))):
    # the highest bit of a number 0 becomes 1
    zero = ~np.where(inside, x, 0).any(axis=1)
    x[zero, highest[zero, 0]] = 1
  results, sizes = np.zeros((len(u), n + 1), np.int32), np.zeros(len(u), int)
  # whole numbers of any size, row by row
  for row, (bits, split) in enumerate(zip(x.tolist(), middle[:, 0].tolist())):
    a, b = (int("".join(map(str, part[::-1])), 2) for part in (bits[:split], bits[split + 1 :]))
    digits = [int(bit) for bit in reversed(f"{combine(a, b):b}")]
    results[row, : len(digits)], sizes[row] = digits, len(digits)
  np.put_along_axis(x, middle, 2, axis=1)
  return x, ended(results, sizes)


def compute_sqrt(u: np.ndarray, n: int) -> Made:
  """Asks for the whole part of the square root of a number above 0, both from their largest bit."""
  x = draws.below(u[:, :n], 2)
  x[~x.any(axis=1), -1] = 1
  m = (n + 1) // 2
  roots = [f"{math.isqrt(int(''.join(map(str, bits)), 2)):0{m}b}" for bits in x.tolist()]
  return x, np.array([[int(bit) for bit in root] for root in roots], np.int32)


def bucket_sort(u: np.ndarray, n: int) -> Made:
  """Asks for the symbols 0 … 4 in order."""
  x = draws.below(u[:, :n], MODULUS)
  return x, np.sort(x, axis=1)


def majority(u: np.ndarray, n: int) -> Made:
  """Asks for the symbol that occurs most often, the smallest of several."""
  x = draws.below(u[:, :n], MANY)
  return x, counts(x).argmax(axis=1)[:, None]


def majority_count(u: np.ndarray, n: int) -> Made:
  """Asks how often the most frequent symbol occurs, modulo the number of symbols."""
  x = draws.below(u[:, :n], MANY)
  return x, counts(x).max(axis=1)[:, None] % MANY


def distinct_symbols(u: np.ndarray, n: int) -> Made:
  """Asks for the symbols that occur, each once, in the order of their first occurrences."""
  x = draws.below(u[:, :n], MANY)
  first = np.where(counts(x) > 0, (x[:, None] == np.arange(MANY)[:, None]).argmax(axis=2), n)
  order = np.argsort(first, axis=1, kind="stable")
  return x, ended(np.pad(order, ((0, 0), (0, 1))), (first < n).sum(axis=1), end=MANY)


def counts(x: np.ndarray) -> np.ndarray:
  """Returns how often each symbol occurs in each row."""
  return (x[:, None] == np.arange(MANY)[:, None]).sum(axis=2)


def ended(answer: np.ndarray, sizes: np.ndarray, end: int = END) -> np.ndarray:
  """Cuts answers to their sizes, and puts the symbol `end` after them, where there is room, and -1 after that."""
  position = np.arange(answer.shape[1])
  return np.select([position < sizes[:, None], position == sizes[:, None]], [answer, np.int64(end)], -1)


def _any(n: int) -> bool:
  return n >= 1


def _one(n: int) -> int:
  return 1


LANGUAGES: dict[str, Language] = {
  # regular
  "even_pairs": Language(2, _any, _one, even_pairs),
  "parity": Language(2, _any, _one, parity),
  "cycle_navigation": Language(MODULUS, _any, _one, cycle_navigation),
  "modular_arithmetic": Language(MODULUS + 3, lambda n: n % 2 == 1, _one, modular_arithmetic),
  # deterministic context-free
  "stack_manipulation": Language(5, _any, lambda n: n + 1, stack_manipulation),
  "reverse_string": Language(2, _any, lambda n: n, reverse_string),
  "modular_arithmetic_brackets": Language(ZERO + MODULUS, _any, _one, modular_arithmetic_brackets),
  "solve_equation": Language(UNKNOWN + 1, lambda n: n >= 3, _one, solve_equation),
  # context-sensitive
  "duplicate_string": Language(2, _any, lambda n: 2 * n, duplicate_string),
  "missing_duplicate": Language(3, lambda n: n % 2 == 0, _one, missing_duplicate),
  "odds_first": Language(2, _any, lambda n: n, odds_first),
  "binary_addition": Language(3, lambda n: n >= 3, lambda n: n + 1, binary_addition),
  "binary_multiplication": Language(3, lambda n: n >= 3, lambda n: n + 1, binary_multiplication),
  "compute_sqrt": Language(2, _any, lambda n: (n + 1) // 2, compute_sqrt),
  "bucket_sort": Language(MODULUS, _any, lambda n: n, bucket_sort),
  # of xLSTM
  "majority": Language(MANY, _any, _one, majority),
  "majority_count": Language(MANY, _any, _one, majority_count),
  "set": Language(MANY + 1, _any, lambda n: MANY + 1, distinct_symbols),
}
