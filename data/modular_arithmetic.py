"""Modular arithmetic: the value of an expression modulo a small number.

Without brackets (Beck et al. 2024, arXiv:2405.04517, App. D.2; its `tasks/modular_arithmetic.py`) a question is
d o d o … d =: digits and operators + - *, all iid, where * binds tighter and equals associate to the left. Tokens are 0
padding, 1 +, 2 -, 3 *, 4 =, then the digits, so that the modulus is vocab - 5.

With brackets (Grazzi et al. 2025, arXiv:2411.12537) an expression of m tokens is, for m = 1, 2, 3, 4, one of d, -d, (d)
and (-d), otherwise (left o right), with left of 1 … m - 4 tokens, uniformly, and o of + and - (or * too). Tokens
are as above with 5 ( and 6 ) before the digits: the modulus is vocab - 7. Departs: theirs numbers the digits first, the
padding last, and has all sizes below 3 at 3.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from data import draws
from data.state_tracking import StateTracking

PLUS, MINUS, TIMES, EQUALS, OPEN, CLOSE = range(1, 7)
Tree = tuple[list[int], int]


@dataclasses.dataclass(frozen=True)
class ModularArithmetic(StateTracking):
  """The answer is a digit. Without brackets there are even sizes only, and the value so far is known at every digit.

  Attributes:
    brackets: which of the two tasks.
    times: whether there is multiplication; published: without brackets yes, with brackets no.
  Raises:
    ValueError: the vocabulary has no two digits, a range has no size, or values are asked for inside brackets.
  """

  vocab: int = 10
  brackets: bool = False
  times: bool = True

  def __post_init__(self) -> None:
    least = self.zero + 2
    self.require("vocab", self.vocab >= least, f"at least {least} (padding, {self.zero - 1} signs and two digits)")
    self.require_range()
    self.require(
      "score", not self.brackets or self.score == "last", "with brackets only 'last': inside them is no value"
    )

  @property
  def zero(self) -> int:
    """Returns the token of the digit 0."""
    return 7 if self.brackets else 5

  def sizes(self, low: int, high: int) -> np.ndarray:
    """Returns the sizes of expressions of at least one token, with the = that follows; see `StateTracking.sizes`."""
    sizes = np.arange(max(low, 2), high + 1)
    return sizes if self.brackets else sizes[sizes % 2 == 0]

  def numbers(self, width: int) -> int:
    """Returns at most two numbers a bracket and one a digit, `width` in all; see `StateTracking.numbers`."""
    return width

  def questions(self, u: np.ndarray, sizes: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns expressions that end in =, and the value as the answer there; see `StateTracking.questions`."""
    tokens, answers = (self._bracketed if self.brackets else self._plain)(u, sizes, width)
    last = sizes[:, None] - 1
    np.put_along_axis(tokens, last, EQUALS, axis=1)
    np.put_along_axis(answers, last, np.take_along_axis(answers, last - 1, axis=1), axis=1)
    return tokens, answers

  def _plain(self, u: np.ndarray, sizes: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    modulus = self.vocab - self.zero
    digits, operators = draws.below(u[:, ::2], modulus), 1 + draws.below(u[:, 1::2], 3 if self.times else 2)
    tokens, answers = np.zeros((len(u), width), np.int32), np.zeros((len(u), width), np.int32)
    tokens[:, ::2], tokens[:, 1::2] = self.zero + digits, operators
    # terms that are complete, and the one that * may still change, with its sign
    total, term = np.zeros(len(u), np.int64), digits[:, 0].astype(np.int64)
    answers[:, 0] = self.zero + term
    for i in range(1, digits.shape[1]):
      times = operators[:, i - 1] == TIMES
      sign = np.where(operators[:, i - 1] == MINUS, -1, 1)
      total = np.where(times, total, (total + term) % modulus)
      term = np.where(times, term * digits[:, i], sign * digits[:, i]) % modulus
      answers[:, 2 * i] = self.zero + (total + term) % modulus
    return tokens, answers

  def _bracketed(self, u: np.ndarray, sizes: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    tokens, answers = np.zeros((len(u), width), np.int32), np.zeros((len(u), width), np.int32)
    for row, size in enumerate(sizes):
      expression, value = self._expression(iter(u[row]), int(size) - 1)
      tokens[row, : size - 1], answers[row, size - 2] = expression, self.zero + value
    return tokens, answers

  def _expression(self, u: Iterator[np.uint32], size: int) -> Tree:
    """Makes an expression of that many tokens, and its value."""
    modulus = self.vocab - self.zero
    pick = lambda n: int(draws.below(np.asarray(next(u)), n))
    if size <= 4:
      digit = pick(modulus)
      sign = [MINUS] if size % 2 == 0 else []
      inner = [*sign, self.zero + digit]
      return ([OPEN, *inner, CLOSE] if size > 2 else inner), (-digit if sign else digit) % modulus
    operator, left_size = PLUS + pick(3 if self.times else 2), 1 + pick(size - 4)
    left, a = self._expression(u, left_size)
    right, b = self._expression(u, size - 3 - left_size)
    value = {PLUS: a + b, MINUS: a - b, TIMES: a * b}[operator]
    return [OPEN, *left, operator, *right, CLOSE], value % modulus
