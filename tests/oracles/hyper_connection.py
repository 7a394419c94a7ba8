"""A hyper-connection around a perceptron, by token: arXiv:2512.24880, as in `models/glm5_next` of transformers."""

import numpy as np

from tests.oracles.parts import dense, sigmoid, silu


def run(p, x, *, streams, iterations, eps=1e-6, norm_eps=1e-5):
  y, n = [], streams
  for u in x:
    logits = (u / np.sqrt(np.mean(u**2) + norm_eps)) @ p["W"]
    pre = sigmoid(p["s"][0] * logits[:n] + p["b"][:n]) + eps
    post = 2 * sigmoid(p["s"][1] * logits[n : 2 * n] + p["b"][n : 2 * n])
    M = np.exp(p["s"][2] * logits[2 * n :] + p["b"][2 * n :]).reshape(n, n)
    M = M / M.sum(axis=1, keepdims=True) + eps
    for i in range(iterations):
      M = M / (M.sum(axis=1, keepdims=True) + eps) if i else M
      M = M / (M.sum(axis=0, keepdims=True) + eps)
    parts = u.reshape(n, -1)
    z = pre @ parts
    z = z / np.sqrt(np.mean(z**2) + 1e-5) * p["norm/scale"]
    out = dense(p, "inner/out_proj", silu(dense(p, "inner/in_proj", z)))
    y.append((M.T @ parts + np.outer(post, out)).reshape(-1))
  return y
