"""Mega, arXiv:2209.10655, eqs. (2), (3) and (6) to (13), without the residual: u (c - x)."""

import numpy as np

from tests.oracles.parts import dense, sigmoid, silu, tokens


def distance_bias(p, position, i, j):
  if position == "simple":
    return p["bias"][i - j]
  # in complex numbers, R_t turns pair m by t 10000^(-m / half)
  b_q, b_k = (half[: len(half) // 2] + 1j * half[len(half) // 2 :] for half in p["bias"])
  frequencies = 10000.0 ** (-np.arange(len(b_q)) / len(b_q))
  return np.sum(b_q * np.exp(1j * i * frequencies) * np.conj(b_k * np.exp(1j * j * frequencies))).real


def run(p, x, *, reset=None, lengths=None, chunk, position="rotary"):
  width, state = p["alpha"].shape
  keys, inner = p["qk_scale"].shape[1], p["v_proj/kernel"].shape[1]
  weight, damping = sigmoid(p["alpha"]), sigmoid(p["delta"])
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    token = x[row, time]
    if starts:
      h, past = np.zeros((width, state)), []
    if len(past) == chunk:
      past = []
    h = (1 - weight * damping) * h + weight * p["beta"] * token[:, None]
    m = silu(np.sum(p["gamma"] * h, axis=1) / np.sqrt(state) + p["omega"] * token)
    u, z, r, c = np.split(dense(p, "m_proj", m), np.cumsum([width, keys, inner]))
    q, k = silu(z) * p["qk_scale"] + p["qk_shift"]
    past.append((k, silu(dense(p, "v_proj", token))))
    i = len(past) - 1
    scores = np.array([q @ k / np.sqrt(keys) + distance_bias(p, position, i, j) for j, (k, _) in enumerate(past)])
    weights = np.exp(scores - scores.max())
    attended = sum(w * v for w, (_, v) in zip(weights / weights.sum(), past))
    candidate = silu(c + dense(p, "h_proj", silu(r) * attended))
    y[row, time] = sigmoid(u) * (candidate - token)
  return y
