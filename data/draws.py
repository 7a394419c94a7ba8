"""Random numbers addressed by (seed, stream, row): any row of any batch can be made alone, by any process.

Philox-4x64 is a counter-based generator (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2,
3"): its n-th block is a function of the key and of n. Row r owns the blocks r·m … r·m + m - 1, so that a batch of
consecutive rows is one call, its rows do not depend on how many processes share it, and to resume is to know a row
number. Only raw bits are taken from numpy, since the streams of its `integers` and `random` may change between versions
and its raw bits may not.
"""

import zlib

import numpy as np

# 4 words of 64 bits a block
WORDS_A_BLOCK = 8


def bits(seed: int, stream: str, first: int, rows: int, draws: int) -> np.ndarray:
  """Returns independent uniform uint32 `rows draws` for rows first, first + 1, …, others for each stream's name."""
  blocks = -(-draws // WORDS_A_BLOCK)
  key = np.array([seed % 2**64, zlib.crc32(stream.encode())], np.uint64)
  words = np.random.Philox(key=key, counter=first * blocks).random_raw(rows * blocks * 4).astype("<u8", copy=False)
  return words.view("<u4").reshape(rows, blocks * WORDS_A_BLOCK)[:, :draws]


def below(u: np.ndarray, n: int | np.ndarray) -> np.ndarray:
  """Maps uint32 `u` to integers in [0, n), int32: the high word of u·n (uneven by at most n / 2^32)."""
  return ((u.astype(np.uint64) * np.asarray(n, np.uint64)) >> np.uint64(32)).astype(np.int32)


def unit(u: np.ndarray) -> np.ndarray:
  """Maps uint32 `u` to floats strictly inside (0, 1)."""
  return (u + 0.5) * 2.0**-32


def distinct(u: np.ndarray, n: int) -> np.ndarray:
  """Returns in each row as many distinct integers of [0, n) as `u` has columns: steps of a Fisher-Yates shuffle."""
  rows, k = u.shape
  assert k <= n, f"{k} distinct integers below {n} were asked for"
  pool = np.tile(np.arange(n, dtype=np.int32), (rows, 1))
  row = np.arange(rows)
  for j in range(k):
    pick = j + below(u[:, j], n - j)
    chosen = pool[row, pick]
    pool[row, pick] = pool[:, j]
    pool[:, j] = chosen
  return pool[:, :k]


def distinct_below(u: np.ndarray, n: np.ndarray) -> np.ndarray:
  """Returns as many distinct integers as `u` has columns, below the row's `n`; beyond n of them they are arbitrary."""
  chosen = np.zeros((len(u), 0), np.int32)
  for j in range(u.shape[1]):
    pick = below(u[:, j], np.maximum(n - j, 1))
    # it counts those that are not chosen yet
    for earlier in np.sort(chosen, axis=1).T:
      pick = pick + (pick >= earlier)
    chosen = np.concatenate([chosen, pick[:, None]], axis=1)
  return chosen


def weighted(u: np.ndarray, p: np.ndarray, k: int) -> np.ndarray:
  """Draws k distinct indices of `p` a row, one after another in proportion to p among those left, in that order.

  The k earliest of independent exponential clocks with rates p have exactly this law. `u` is `rows len(p)`.
  """
  clocks = -np.log(unit(u)) / p
  return np.argsort(clocks, axis=1, kind="stable")[:, :k].astype(np.int32)


def permutation(seed: int, stream: str, index: int, n: int) -> np.ndarray:
  """Returns the permutation of n things that belongs to `index` (an epoch, a split)."""
  words = bits(seed, stream, index, 1, 2 * n)[0]
  return np.argsort(words.view("<u8"), kind="stable")
