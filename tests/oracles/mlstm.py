"""mLSTM, arXiv:2405.04517, eqs. (19)-(27), as they stand, without what keeps the exponentials in range."""

import numpy as np

from tests.oracles.matrix_state import group_norm
from tests.oracles.parts import block_dense, dense, sigmoid, silu


def run(p, x, *, heads, eps=1e-6):
  taps, inner = p["conv/kernel"].shape
  size = inner // heads
  seen, C, n, largest = [np.zeros(inner)] * taps, np.zeros((heads, size, size)), np.zeros((heads, size)), None
  y = []
  for u in x:
    u, z = np.split(dense(p, "in_proj", u), 2)
    seen = [*seen[1:], u]
    c = silu(p["conv/bias"] + sum(tap * before for tap, before in zip(p["conv/kernel"], seen)))
    q, k, v = block_dense(p, "q_proj", c), block_dense(p, "k_proj", c), block_dense(p, "v_proj", u)
    gates = np.concatenate([q, k, v])
    i, f = np.exp(dense(p, "i_proj", gates)), sigmoid(dense(p, "f_proj", gates))
    # the authors' eps is in units of the largest weight
    largest = i if largest is None else np.maximum(f * largest, i)
    q, k, v = (part.reshape(heads, -1) for part in (q, k, v))
    out = []
    for j in range(heads):
      scaled = k[j] / np.sqrt(len(k[j]))
      C[j] = f[j] * C[j] + i[j] * np.outer(v[j], scaled)
      n[j] = f[j] * n[j] + i[j] * scaled
      out.append(C[j] @ q[j] / (max(abs(n[j] @ q[j]), 1) + eps * largest[j]))
    h = group_norm(np.concatenate(out), heads, p["norm/scale"], 0, 1e-5)
    y.append(dense(p, "out_proj", (h + p["skip"] * c) * silu(z)))
  return y
