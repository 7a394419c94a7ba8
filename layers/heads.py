"""Sizes of heads that nobody gave."""


def head_size(features: int, most: int) -> int:
  """The largest divisor of `features` not above `most`: a published head size, or what comes next to it."""
  return max(size for size in range(1, most + 1) if features % size == 0)
