"""Vectors of n-grams weighed for each stream, arXiv:2601.07372, as in `models/qwen4_exp` of transformers, by token."""

import numpy as np

from tests.oracles.matrix_state import rms
from tests.oracles.parts import dense, sigmoid, silu


def run(p, x, ngrams, *, streams, taps=4, dilation=3, number=0, size=None, norm_eps=1e-6):
  d = x.shape[1] // streams
  size = size or d
  y, past = [], []
  for u, n in zip(x, ngrams[:, number * size : (number + 1) * size]):
    key, value = dense(p, "k_proj", n), dense(p, "v_proj", n)
    weighed = []
    for i in range(streams):
      part = slice(i * d, (i + 1) * d)
      q, k = rms(u[part], p["q_norm/scale"][part], norm_eps), rms(key[part], p["k_norm/scale"][part], norm_eps)
      c = q @ k / np.sqrt(d)
      weighed.append(sigmoid(np.sign(c) * np.sqrt(max(abs(c), 1e-6))) * value)
    scales = np.split(p["conv_norm/scale"], streams)
    past.append(np.concatenate([rms(z, scale, norm_eps) for z, scale in zip(weighed, scales)]))
    out = np.zeros_like(u)
    for tap in range(taps):
      back = len(past) - 1 - (taps - 1 - tap) * dilation
      out += p["conv/kernel"][tap] * past[back] if back >= 0 else 0
    y.append(np.concatenate(weighed) + silu(out))
  return y
