"""Based's linear attention, arXiv:2402.18668, sec. 4.1, with a feature for every ordered pair of channels."""

import numpy as np

from tests.oracles.parts import dense


def run(p, x, *, heads):
  numerator, divisor = [0.0] * heads, [0.0] * heads
  y = []
  for u in x:
    q, k, v = (dense(p, name, u).reshape(heads, -1) for name in ("q_proj", "k_proj", "v_proj"))
    out = []
    for i in range(heads):
      numerator[i] = numerator[i] + np.outer(phi(k[i]), v[i])
      divisor[i] = divisor[i] + phi(k[i])
      out.append(phi(q[i]) @ numerator[i] / (phi(q[i]) @ divisor[i]))
    y.append(dense(p, "out_proj", np.concatenate(out)))
  return y


def phi(x):
  d = len(x)
  return np.concatenate([[1], x / d**0.25, np.outer(x, x).ravel() / np.sqrt(2 * d)])
