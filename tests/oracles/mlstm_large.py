"""mLSTM of xLSTM 7B, arXiv:2503.13427, eqs. (1)-(13), without what keeps the exponentials in range."""

import numpy as np

from tests.oracles.matrix_state import group_norm
from tests.oracles.parts import dense, sigmoid


def run(p, x, *, heads, cap=15.0, eps=1e-6):
  softcap = lambda z: z if cap is None else cap * np.tanh(z / cap)
  C, n, largest, y = [0.0] * heads, [0.0] * heads, None, []
  for u in x:
    q, k, v = (dense(p, f"{name}_proj", u).reshape(heads, -1) for name in "qkv")
    i, f = np.exp(softcap(dense(p, "i_proj", u))), sigmoid(softcap(dense(p, "f_proj", u)))
    # the authors' eps is in units of the largest weight
    largest = i if largest is None else np.maximum(f * largest, i)
    out = []
    for j in range(heads):
      C[j] = f[j] * C[j] + i[j] * np.outer(v[j], k[j])
      n[j] = f[j] * n[j] + i[j] * k[j]
      query = q[j] / np.sqrt(len(q[j]))
      out.append(C[j] @ query / (max(abs(n[j] @ query), 1) + eps * largest[j]))
    h = group_norm(np.concatenate(out), heads, p["norm/scale"], p.get("norm/bias", 0.0), 1e-6)
    y.append(dense(p, "out_proj", sigmoid(dense(p, "gate_proj", u)) * h))
  return y
