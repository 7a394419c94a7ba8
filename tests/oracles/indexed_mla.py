"""Latent attention to chosen pools, arXiv:2512.02556, sec. 2.1, with pools: what each query sees, written out."""

import numpy as np

from tests.oracles.matrix_state import rms
from tests.oracles.parts import dense


def run(p, x, *, heads, index_heads, pool, chosen):
  y = []
  k_up = p["k_up"].reshape(len(p["k_up"]), heads, -1)
  v_up = p["v_up"].reshape(len(p["v_up"]), heads, -1)
  latents, shared, keys, gates = [], [], [], []
  for u in x:
    compressed = rms(dense(p, "q_down", u), p["q_norm/scale"], 1e-6)
    q = dense(p, "q_up", compressed).reshape(heads, -1)
    latents.append(rms(dense(p, "c_proj", u), p["c_norm/scale"], 1e-6))
    shared.append(dense(p, "r_proj", u) if "r_proj/kernel" in p else np.zeros(0))
    key = dense(p, "index_k", u)
    key = (key - key.mean()) / np.sqrt(key.var() + 1e-6)
    keys.append(key * p["index_norm/scale"] + p["index_norm/bias"])
    gates.append(dense(p, "index_gate", u))
    index_q = dense(p, "index_q", compressed).reshape(index_heads, -1)
    scores = []
    for start in range(0, len(keys) - pool + 1, pool):
      part = slice(start, start + pool)
      weights = np.exp(np.array(gates[part]) + p["P"])
      mean = (weights / weights.sum(0) * np.array(keys[part])).sum(0)
      scores.append(np.maximum(index_q @ mean, 0) @ dense(p, "index_weights", u))
    best = np.argsort(-np.array(scores), kind="stable")[: chosen // pool]
    seen = [token for number in sorted(best) for token in range(number * pool, (number + 1) * pool)]
    seen += range(len(keys) // pool * pool, len(keys))
    out = []
    for i in range(heads):
      keys_of_head = [np.concatenate([latents[s] @ k_up[:, i], shared[s]]) for s in seen]
      scores = np.exp([q[i] @ k / np.sqrt(len(k)) for k in keys_of_head])
      out.append(sum(w * (latents[s] @ v_up[:, i]) for w, s in zip(scores / scores.sum(), seen)))
    y.append(dense(p, "out_proj", np.concatenate(out)))
  return np.array(y)
