"""Hashes of n-grams of tokens: rows of tables in which n-grams that happen to meet share a vector.

The n-gram that ends at token t has the hash (token_t m_0) ^ (token_{t-1} m_1) ^ … ^ (token_{t-n+1} m_{n-1}) with odd
multipliers m of nearly 64 bits, as in `models/qwen4_exp` of transformers; ^ adds bits without carrying. Its row in a
table is that modulo the table's number of rows, a prime of its own for each table, so that n-grams which meet in one of
them are apart in others.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt

# Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195: the generator splitmix64
GAMMA, MIXERS, WORD = 0x9E3779B97F4A7C15, (0xBF58476D1CE4E5B9, 0x94D049BB133111EB), 2**64
# the seeds of two layers are so far apart
STRIDE = 10_007
HALF = 16
LOW = np.uint32(2**HALF - 1)


def multipliers(vocab: int, count: int, *, seed: int, layer: int) -> tuple[int, ...]:
  """Draws odd multipliers, so small that their products with tokens stay below 2^63.

  Args:
    layer: the number of the layer among those with n-grams, counted from 0.
  """
  most = max(1, (2**63 - 1) // vocab // 2)
  first = seed + STRIDE * layer
  return tuple(2 * (_splitmix((first + GAMMA * (i + 1)) % WORD) % most) + 1 for i in range(count))


def _splitmix(state: int) -> int:
  z = (state + GAMMA) % WORD
  z = (z ^ (z >> 30)) * MIXERS[0] % WORD
  z = (z ^ (z >> 27)) * MIXERS[1] % WORD
  return z ^ (z >> 31)


@functools.cache
def primes(least: int, first: int, count: int) -> tuple[int, ...]:
  """Returns `count` neighbouring primes, from that on which has `first` primes before it that are `least` or above."""
  return tuple(itertools.islice(_primes(least), first, first + count))


def _primes(least: int) -> Iterator[int]:
  for number in itertools.count(max(least, 2)):
    divisors = np.arange(2, int(number**0.5) + 1)
    if np.all(number % divisors):
      yield number


def rows(ngram: Sequence[Int[Array, "*b"]], by: Sequence[int], sizes: Sequence[int]) -> Int[Array, "*b h"]:
  """Returns the rows of an n-gram in tables of these sizes.

  JAX has no integers of 64 bits unless all numbers may have them, so that these are two words of 32 bits.

  Args:
    ngram: its last token, the token before that, …, none of them negative.
    by: a multiplier for each.
    sizes: below 2^31.
  """
  high, low = jnp.uint32(0), jnp.uint32(0)
  for token, multiplier in zip(ngram, by, strict=True):
    product = _times(token.astype(jnp.uint32), multiplier)
    high, low = high ^ product[0], low ^ product[1]
  moduli = np.asarray(sizes, np.uint32)
  rest = high[..., None] % moduli
  # as many further bits at once as a word has room for beside a rest
  free = 32 - int(max(sizes)).bit_length()
  for end in range(32, 0, -free):
    bits = min(free, end)
    more = (low >> np.uint32(end - bits)) & np.uint32(2**bits - 1)
    rest = ((rest << np.uint32(bits)) | more[..., None]) % moduli
  return rest.astype(jnp.int32)


def _times(x: UInt[Array, "*b"], multiplier: int) -> tuple[UInt[Array, "*b"], UInt[Array, "*b"]]:
  """Returns the upper and the lower word of a product modulo 2^64, by products of half words."""
  upper, lower = np.uint32(multiplier >> 32), np.uint32(multiplier % 2**32)
  (x1, x0), (y1, y0) = ((z >> np.uint32(HALF), z & LOW) for z in (x, lower))
  middle = x1 * y0 + ((x0 * y0) >> np.uint32(HALF))
  other = x0 * y1 + (middle & LOW)
  return x1 * y1 + (middle >> np.uint32(HALF)) + (other >> np.uint32(HALF)) + x * upper, x * lower
