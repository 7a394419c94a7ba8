"""Checks the sizes that a config sets for a mixer, and derives those that it leaves out."""

from typing import Any

from mistake import Mistake


def at_least_one(module: Any, *fields: str) -> None:
  """Refuses sizes below 1, and those that no index reaches; None is a size that was not set."""
  for field in fields:
    value = getattr(module, field)
    if value is not None and not 1 <= value < 2**31:
      bound = "below 2^31" if value > 1 else "at least 1"
      raise Mistake(f"{type(module).__name__}: {field}={value}; it must be {bound}")


def above_zero(module: Any, *fields: str) -> None:
  """Refuses numbers that are not above 0; None is a number that was not set."""
  for field in fields:
    value = getattr(module, field)
    if value is not None and not value > 0:
      raise Mistake(f"{type(module).__name__}: {field}={value}; it must be above 0")


def at_least_zero(module: Any, *fields: str) -> None:
  """Refuses numbers below 0, as an epsilon that is one makes a quotient infinite or a root NaN; None was not set."""
  for field in fields:
    value = getattr(module, field)
    if value is not None and not value >= 0:
      raise Mistake(f"{type(module).__name__}: {field}={value}; it must be at least 0")


def place_in_depth(module: Any) -> None:
  """Refuses a `layer` that a model of `depth` layers does not have: initial values of it would be infinite or wrong."""
  at_least_one(module, "depth")
  if not 0 <= module.layer < module.depth:
    name = type(module).__name__
    raise Mistake(f"{name}: layer={module.layer}; it is counted from 0 and must be below depth={module.depth}")


def scaled(factor: float, size: int) -> int:
  """Rounds factor * size to a whole number: 120/88 of 88 is 120, although the product in floating point is below it."""
  return round(factor * size)


def largest_divisor(size: int, most: int) -> int:
  """Returns the largest divisor of `size` up to `most`: a published number or size of heads, or the next one."""
  return max(n for n in range(1, most + 1) if size % n == 0)
