"""Sizes of mixers: those that cannot be, and those that nobody gave."""

from typing import Any


def at_least_one(module: Any, *fields: str) -> None:
  """Refuses sizes below 1; None is a size that nobody gave.

  Raises:
    ValueError: a field of the module is below 1.
  """
  for field in fields:
    value = getattr(module, field)
    if value is not None and value < 1:
      raise ValueError(f"{type(module).__name__}: {field}={value}; it must be at least 1")


def largest_divisor(size: int, most: int) -> int:
  """The largest divisor of `size` not above `most`: a published number or size of heads, or what comes next to it."""
  return max(n for n in range(1, most + 1) if size % n == 0)
