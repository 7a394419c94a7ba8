"""Sizes that nobody gave."""


def largest_divisor(size: int, most: int) -> int:
  """The largest divisor of `size` not above `most`: a published number or size of heads, or what comes next to it."""
  return max(n for n in range(1, most + 1) if size % n == 0)
