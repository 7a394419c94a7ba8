"""RetNet, arXiv:2307.08621, eqs. (6) and (8): rotations as complex numbers, with the norm of the authors' code."""

import numpy as np

from tests.oracles.matrix_state import rms
from tests.oracles.parts import dense, silu, tokens


def run(p, x, *, reset=None, lengths=None, heads, eps=1e-6):
  size = x.shape[-1] // heads
  theta = 1 / 10000 ** np.linspace(0, 1, size // 2)
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    u = x[row, time]
    q, k, v, g = (dense(p, name, u).reshape(heads, -1) for name in ("q_proj", "k_proj", "v_proj", "g_proj"))
    if starts:
      n, S, scale = 0, np.zeros((heads, size // 2, v.shape[1]), complex), np.zeros(heads)
    q, k = ((z[:, 0::2] + 1j * z[:, 1::2]) * np.exp(1j * n * theta) for z in (q, k))
    n, out = n + 1, []
    for i in range(heads):
      gamma = 1 - 2.0 ** (-5 - i)
      # the real part of q times the conjugate of k is their product as vectors
      S[i] = gamma * S[i] + np.outer(k[i].conj(), v[i])
      scale[i] = gamma * scale[i] + 1
      out.append(rms((q[i] @ S[i]).real / np.sqrt(size * scale[i]), 1, eps) * silu(g[i]))
    y[row, time] = dense(p, "out_proj", np.concatenate(out))
  return y
