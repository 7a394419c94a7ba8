"""RetNet, arXiv:2307.08621, eqs. (6) and (8): rotations as complex numbers, with the norm of the authors' code."""

import numpy as np

from tests.oracles.matrix_state import rms
from tests.oracles.parts import dense, silu


def run(p, x, *, heads, eps=1e-6):
  size = x.shape[1] // heads
  theta = 1 / 10000 ** np.linspace(0, 1, size // 2)
  S, scale, y = [0.0] * heads, np.zeros(heads), []
  for n, u in enumerate(x):
    q, k, v, g = (dense(p, name, u).reshape(heads, -1) for name in ("q_proj", "k_proj", "v_proj", "g_proj"))
    q, k = ((z[:, 0::2] + 1j * z[:, 1::2]) * np.exp(1j * n * theta) for z in (q, k))
    out = []
    for i in range(heads):
      gamma = 1 - 2.0 ** (-5 - i)
      # the real part of q times the conjugate of k is their product as vectors
      S[i] = gamma * S[i] + np.outer(k[i].conj(), v[i])
      scale[i] = gamma * scale[i] + 1
      out.append(rms((q[i] @ S[i]).real / np.sqrt(size * scale[i]), 1, eps) * silu(g[i]))
    y.append(dense(p, "out_proj", np.concatenate(out)))
  return y
