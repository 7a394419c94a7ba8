"""The rows of MAD's problems (data/mad.py).

Each function takes `u`, which gives as many uint32 numbers a row as it is asked for, a length and a vocabulary, and
returns inputs int32 "rows length" and the answers at each token, -1 where nothing is asked.
"""

from collections.abc import Callable

import numpy as np

from data import draws

Numbers = Callable[[int], np.ndarray]
Made = tuple[np.ndarray, np.ndarray]
# tokens of the vocabulary that are noise, where there is noise
NOISE = 16
# tokens of a key or value at most, in fuzzy recall
MOTIF = 3
# fixes the values of memorization
MAP_SEED = 12345


def recall(u: Numbers, length: int, vocab: int, *, noise: float | None) -> Made:
  """Makes pairs of a key, of the vocabulary's lower half, and a value; `noise` is the share of noisy pairs, or None."""
  pairs, ordinary = length // 2, vocab - (NOISE if noise is not None else 0)
  keys = ordinary // 2
  drawn = u(keys + 4 * pairs + 1)
  value_of, rest = keys + draws.below(drawn[:, :keys], ordinary - keys), drawn[:, keys + 1 :].reshape(-1, 4, pairs)
  key = draws.below(rest[:, 0], keys)
  if noise is None:
    is_pair = np.ones(key.shape, bool)
  else:
    is_pair = draws.unit(rest[:, 1]) >= noise
    np.put_along_axis(is_pair, draws.below(drawn[:, keys : keys + 1], pairs - 1), True, axis=1)
  is_pair[:, -1] = False
  # the last key is one that has been there
  key[:, -1] = np.take_along_axis(key, one_of(key, is_pair, rest[:, 0, -1])[:, None], axis=1)[:, 0]
  is_pair[:, -1] = True
  value = np.take_along_axis(value_of, key, axis=1)
  known = first_same(key, is_pair) < np.arange(pairs)
  inputs, answers = np.empty((len(key), length), np.int32), np.full((len(key), length), -1, np.int32)
  inputs[:, ::2] = np.where(is_pair, key, ordinary + draws.below(rest[:, 2], NOISE))
  inputs[:, 1::2] = np.where(is_pair, value, ordinary + draws.below(rest[:, 3], NOISE))
  answers[:, ::2] = np.where(known & is_pair, value, -1)
  return inputs, answers


def fuzzy_recall(u: Numbers, length: int, vocab: int, *, evaluate: bool) -> Made:
  """Makes keys and values of several distinct tokens; the padding is the last token of the vocabulary."""
  pairs, ordinary = length // 2, vocab - 1
  keys = ordinary // 2
  drawn = u((2 * MOTIF + 2) * pairs + 1)
  parts = drawn[:, 1:].reshape(-1, pairs, 2 * MOTIF + 2)
  rows = len(drawn)
  motif = lambda part, n: draws.distinct(part.reshape(rows * pairs, MOTIF), n).reshape(rows, pairs, MOTIF)
  key, value = motif(parts[..., 2 : 2 + MOTIF], keys), keys + motif(parts[..., 2 + MOTIF :], ordinary - keys)
  key_size = np.full((rows, pairs), MOTIF) if evaluate else 1 + draws.below(parts[..., 0], MOTIF)
  value_size = 1 + draws.below(parts[..., 1], MOTIF)
  code = lambda: (np.where(np.arange(MOTIF) < key_size[..., None], key + 1, 0) * (keys + 1) ** np.arange(MOTIF)).sum(-1)
  everywhere = np.ones((rows, pairs), bool)
  # a key has the value of its first occurrence
  first = first_same(code(), everywhere)
  value, value_size = np.take_along_axis(value, first[..., None], axis=1), np.take_along_axis(value_size, first, axis=1)
  valid = np.cumsum(key_size + value_size, axis=1) <= length - 2 * MOTIF
  many = valid.sum(axis=1)
  row = np.arange(rows)
  probe = one_of(code(), valid, drawn[:, 0])
  for x in (key, value, key_size, value_size, first):
    x[row, many] = x[row, probe]
  valid[row, many] = True
  return left_padded(key, value, key_size, value_size, valid, (first < np.arange(pairs)) & valid, length, ordinary)


def left_padded(
  key: np.ndarray,
  value: np.ndarray,
  key_size: np.ndarray,
  value_size: np.ndarray,
  valid: np.ndarray,
  known: np.ndarray,
  length: int,
  padding: int,
) -> Made:
  """Lays the pairs of the mask `valid` end to end at the right of each row; the values of known keys are asked."""
  tokens = np.concatenate([key, value], axis=2)
  index = np.arange(MOTIF)
  in_key, in_value = index < key_size[..., None], index < value_size[..., None]
  used = np.concatenate([in_key, in_value], axis=2) & valid[..., None]
  asked = np.concatenate([np.zeros_like(in_key), in_value], axis=2) & known[..., None]
  rows = len(tokens)
  used, tokens, asked = (x.reshape(rows, -1) for x in (used, tokens, asked))
  right = np.arange(length) >= length - used.sum(axis=1)[:, None]
  inputs, answers = np.full((rows, length), padding, np.int32), np.full((rows, length), -1, np.int32)
  inputs[right] = tokens[used]
  answers[right] = np.where(asked, tokens, -1)[used]
  # a token is predicted at the one before it
  answers = np.roll(answers, -1, axis=1)
  answers[:, -1] = -1
  return inputs, answers


def memorization(u: Numbers, length: int, vocab: int) -> Made:
  """Makes rows of a key, then the token vocab - 1, at which its value is asked; again and again."""
  keys = (vocab - 1) // 2
  value_of = keys + draws.permutation(MAP_SEED, "mad/memorization", 0, vocab - 1 - keys)[:keys]
  key = draws.below(u(length // 2), keys)
  inputs, answers = np.full((len(key), length), vocab - 1, np.int32), np.full((len(key), length), -1, np.int32)
  inputs[:, ::2], answers[:, 1::2] = key, value_of[key]
  return inputs, answers


def compression(u: Numbers, length: int, vocab: int) -> Made:
  """Makes random tokens, then the token vocab - 1; the row itself is asked."""
  inputs = draws.below(u(length), vocab - 1)
  inputs[:, -1] = vocab - 1
  return inputs, inputs


def selective_copying(u: Numbers, length: int, vocab: int, tokens: int) -> Made:
  """Makes blanks (vocab - 2) in front of any of the tokens, then the copy token (vocab - 1), then a blank for each."""
  blanks = length - 2 * tokens - 1
  drawn = u(tokens + blanks)
  data = draws.below(drawn[:, :tokens], vocab - 2)
  before = draws.below(drawn[:, tokens:], tokens)
  positions = np.arange(tokens) + (before[:, None] <= np.arange(tokens)[:, None]).sum(axis=2)
  inputs, answers = np.full((len(data), length), vocab - 2, np.int32), np.full((len(data), length), -1, np.int32)
  np.put_along_axis(inputs, positions, data, axis=1)
  inputs[:, tokens + blanks], answers[:, -tokens:] = vocab - 1, data
  return inputs, answers


def first_same(codes: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """Returns for each position of each row the first one that counts and has the same code; itself if there is none."""
  n = codes.shape[1]
  same = (codes[:, :, None] == codes[:, None, :]) & counts[:, None, :] | np.eye(n, dtype=bool)
  return same.argmax(axis=2)


def one_of(codes: np.ndarray, counts: np.ndarray, u: np.ndarray) -> np.ndarray:
  """Draws a position of each row, uniformly among the different codes at positions that count."""
  new = counts & (first_same(codes, counts) == np.arange(codes.shape[1]))
  wanted = draws.below(u, new.sum(axis=1))
  return (np.cumsum(new, axis=1) == wanted[:, None] + 1).argmax(axis=1)
