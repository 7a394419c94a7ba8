"""Nystromformer, arXiv:2102.03902, sec. 3, and the convolution of fig. 2."""

import numpy as np

from tests.oracles.linformer import weights_of
from tests.oracles.parts import dense


def inverse(A, iterations):
  """From A^T / (|A|_1 |A|_inf)."""
  Z = A.T / (np.abs(A).sum(axis=0).max() * np.abs(A).sum(axis=1).max())
  one = np.eye(len(A))
  for _ in range(iterations):
    Z = 0.25 * Z @ (13 * one - A @ Z @ (15 * one - A @ Z @ (7 * one - A @ Z)))
  return Z


def run(p, x, *, heads, landmarks, iterations=6):
  size = x.shape[1] // heads
  q, k, v = (dense(p, f"qkv/{name}", x) for name in ("q_proj", "k_proj", "v_proj"))
  n, m, out = len(x), min(landmarks, len(x)), np.zeros_like(q)
  segments = [[i for i in range(n) if i * m // n == j] for j in range(m)]
  for head, part in enumerate(np.split(np.arange(x.shape[1]), heads)):
    q_means, k_means = (np.array([z[s][:, part].mean(axis=0) for s in segments]) for z in (q, k))
    scores = lambda a, b: weights_of(a @ b.T / size**0.5)
    A = scores(q_means, k_means)
    out[:, part] = scores(q[:, part], k_means) @ inverse(A, iterations) @ scores(q_means, k[:, part]) @ v[:, part]
    kernel = p["kernel"][:, head] if "kernel" in p else []
    for t in range(n):
      for j, tap in enumerate(kernel):
        s = t + j - len(kernel) // 2
        if 0 <= s < n:
          out[t, part] += tap * v[s, part]
  return dense(p, "qkv/out_proj", out)
