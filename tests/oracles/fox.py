"""Forgetting attention, arXiv:2503.02130, sec. 3, with the sum of log f between every two tokens written out."""

import numpy as np

from tests.oracles.matrix_state import rms
from tests.oracles.parts import dense, sigmoid
from tests.oracles.softmax import angles, read_out, turn


def run(p, x, *, heads, kv_heads=None, size=None, window=None, position="none", theta=1e4, qk_norm="none", scale=None):
  groups, size = kv_heads or heads, size or x.shape[-1] // heads
  f = sigmoid(dense(p, "f_proj", x))
  k, v = (shifted(p, name, x, groups, size) for name in ("k", "v"))
  q = dense(p, "q_proj", x).reshape(len(x), heads, size)
  if qk_norm == "head":
    normed = lambda z, scale: np.array([[rms(vector, scale, 1e-6) for vector in row] for row in z])
    q, k = normed(q, p["q_norm/scale"]), normed(k, p["k_norm/scale"])
  if position == "rope":
    rates = angles(size, theta, None)
    q, k = (np.array([turn(z[t], t, rates, "half") for t in range(len(x))]) for z in (q, k))
  y = []
  for t, u in enumerate(x):
    seen = range(max(0, t + 1 - window) if window else 0, t + 1)
    out = []
    for i in range(heads):
      j = i * groups // heads
      kept = [sum(np.log(f[n, i]) for n in range(s + 1, t + 1)) for s in seen]
      weights = np.exp([q[t, i] @ k[s, j] * (scale or size**-0.5) + left for s, left in zip(seen, kept)])
      o = sum(w * v[s, j] for w, s in zip(weights / weights.sum(), seen))
      if "y_norm/scale" in p:
        o = rms(o, p["y_norm/scale"][i * size : (i + 1) * size], 1e-6)
      out.append(o)
    y.append(read_out(p, out, u))
  return y


def shifted(p, name, x, groups, size):
  """Keys or values by head, each mixed with the one before: a z_{t-1} + (1 - a) z_t."""
  z = dense(p, f"{name}_proj", x).reshape(len(x), groups, size)
  if f"{name}_shift/kernel" not in p:
    return z
  a = sigmoid(dense(p, f"{name}_shift", x))[..., None]
  return a * np.concatenate([np.zeros_like(z[:1]), z[:-1]]) + (1 - a) * z
