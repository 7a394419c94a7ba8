"""Compressed convolutional attention, arXiv:2510.04476, document by document, with both convolutions written out."""

import numpy as np

from tests.oracles.parts import dense
from tests.oracles.softmax import angles, turn


def run(p, x, *, heads, groups, size, turned=None, window=None, theta=1e4):
  q, k, v = of_document(p, x, heads, groups, size)
  rates, y = angles(turned or size, theta, None), []
  for t in range(len(x)):
    q[t], k[t] = turn(q[t], t, rates, "half"), turn(k[t], t, rates, "half")
    seen = range(0 if window is None else max(0, t - window + 1), t + 1)
    out = []
    for i in range(heads):
      j = i * groups // heads
      weights = np.exp([q[t, i] @ k[s, j] / np.sqrt(size) for s in seen])
      out.append(sum(w * v[s, j] for w, s in zip(weights / weights.sum(), seen)))
    y.append(dense(p, "out_proj", np.concatenate(out)))
  return y


def of_document(p, u, heads, groups, size):
  """Queries, keys and values by head, before they turn; the convolutions see zeros before the first token."""
  n, each = len(u), heads // groups
  q, k = (dense(p, name, u) for name in ("q_proj", "k_proj"))
  one, two = p["conv/kernel"], p["head_conv"]
  before = len(one) - 1 + len(two) - 1
  line = np.concatenate([np.zeros((before, q.shape[1] + k.shape[1])), np.concatenate([q, k], axis=1)])
  line = np.array(
    [p["conv/bias"] + sum(tap * line[t + i] for i, tap in enumerate(one)) for t in range(n + len(two) - 1)]
  )
  line = line.reshape(len(line), heads + groups, size)
  line = np.array(
    [p["head_bias"] + sum(np.einsum("hk,hkl->hl", line[t + i], tap) for i, tap in enumerate(two)) for t in range(n)]
  )
  q, k = q.reshape(n, heads, size), k.reshape(n, groups, size)
  rest = np.stack([(q[:, i] + k[:, i // each]) / 2 for i in range(heads)], axis=1)
  q = line[:, :heads] + rest
  k = line[:, heads:] + np.stack([rest[:, j * each : (j + 1) * each].mean(axis=1) for j in range(groups)], axis=1)
  length = lambda z: np.sqrt(size) * z / np.linalg.norm(z, axis=-1, keepdims=True)
  earlier = np.concatenate([np.zeros((1, u.shape[1])), u[:-1]])
  v = np.concatenate([dense(p, "v_proj", u), dense(p, "v_proj_before", earlier)], axis=1).reshape(n, groups, size)
  return length(q), length(k) * p["temperature"][:, None], v
