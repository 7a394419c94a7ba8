"""Rows put together from pieces of different lengths, without a loop over rows."""

import numpy as np


def packed_left(tokens: np.ndarray, valid: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
  """Moves the tokens "b *n" that are `there` (bool) to the left of each row, in order.

  Returns:
    int32 `b length`, 0 past the tokens of a row, and how many those are, int32 `b`.
  """
  rows = len(tokens)
  tokens, valid = tokens.reshape(rows, -1), valid.reshape(rows, -1)
  sizes = valid.sum(axis=1).astype(np.int32)
  assert sizes.max(initial=0) <= length, f"a row has {sizes.max()} tokens and room for {length}"
  out = np.zeros((rows, length), np.int32)
  out[np.arange(length) < sizes[:, None]] = tokens[valid]
  return out, sizes


def table(texts: list[bytes]) -> np.ndarray:
  """Stacks texts to one uint8 array `n longest`, 0 past the end of each; no text has a byte 0."""
  out = np.zeros((len(texts), max(map(len, texts))), np.uint8)
  for row, text in zip(out, texts):
    row[: len(text)] = np.frombuffer(text, np.uint8)
  return out
