"""FAVOR+, arXiv:2009.14794, sec. 2.2 to 2.4: every weight by itself, no state."""

import numpy as np

from tests.oracles.parts import dense


def run(p, x, *, heads, kernel="softmax", mask="causal", eps=None):
  eps = {"softmax": 1e-6, "relu": 1e-3}[kernel] if eps is None else eps
  q, k, v = (dense(p, f"qkv/{name}", x) for name in ("q_proj", "k_proj", "v_proj"))
  out = np.zeros_like(q)
  for part in np.split(np.arange(x.shape[1]), heads):
    scaled = [z[:, part] / len(part) ** 0.25 for z in (q, k)]
    if kernel == "relu":
      a, b = (np.maximum(z @ p["W"].T, 0) + eps for z in scaled)
      weights = a @ b.T
    else:
      a, b = (z @ p["W"].T - np.sum(z**2, axis=1, keepdims=True) / 2 for z in scaled)
      weights = softmax_weights(np.exp(a - a.max(axis=1, keepdims=True)) + eps, b, mask, eps)
    for i in range(len(x)):
      seen = slice(None) if mask == "full" else slice(i + 1)
      out[i, part] = weights[i, seen] @ v[seen, part] / weights[i, seen].sum()
  return dense(p, "qkv/out_proj", out)


def softmax_weights(a, b, mask, eps):
  """eps is added to features over the largest that a token knows of when it comes, and shrinks with them after."""
  n = len(a)
  largest = [b.max() if mask == "full" else b[: i + 1].max() for i in range(n)]
  weights = np.zeros((n, n))
  for i in range(n):
    for j in range(n if mask == "full" else i + 1):
      weights[i, j] = a[i] @ (np.exp(b[j] - largest[i]) + eps * np.exp(largest[j] - largest[i]))
  return weights
