"""Attention, arXiv:1706.03762, sec. 3.2, query by query; rotary positions, arXiv:2104.09864, as complex numbers."""

import numpy as np

from tests.oracles.parts import dense, tokens


def run(
  p, x, *, reset=None, lengths=None, heads, kv_heads=None, mask="causal", position="none", theta=1e4, window=None
):
  groups = kv_heads or heads
  size = x.shape[-1] // heads
  there = list(tokens(x, reset, lengths))
  document, index, documents = {}, {}, 0
  for row, time, starts in there:
    documents += starts
    document[row, time] = documents
    index[row, time] = 0 if starts else index[row, time - 1] + 1

  def project(name, row, time, count):
    vectors = dense(p, name, x[row, time]).reshape(count, size)
    if position == "none" or name == "v_proj":
      return vectors
    angle = index[row, time] * theta ** (-2 * np.arange(size // 2) / size)
    turned = (vectors[:, : size // 2] + 1j * vectors[:, size // 2 :]) * np.exp(1j * angle)
    return np.concatenate([turned.real, turned.imag], axis=1)

  k = {token[:2]: project("k_proj", *token[:2], groups) for token in there}
  v = {token[:2]: project("v_proj", *token[:2], groups) for token in there}
  y = np.zeros_like(x)
  for row, time, _ in there:
    q = project("q_proj", row, time, heads)
    seen = [
      (other, s)
      for other, s, _ in there
      if document[other, s] == document[row, time]
      and (mask == "full" or s <= time)
      and (window is None or time - s < window)
    ]
    out = []
    for head in range(heads):
      group = head * groups // heads
      weights = np.exp(np.array([q[head] @ k[key][group] / np.sqrt(size) for key in seen]))
      out.append(sum(w * v[key][group] for w, key in zip(weights / weights.sum(), seen)))
    y[row, time] = dense(p, "out_proj", np.concatenate(out))
  return y
