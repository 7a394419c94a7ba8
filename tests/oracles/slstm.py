"""sLSTM, arXiv:2405.04517, eqs. (8)-(14) as they stand, without the stabiliser, in the paper's block."""

import numpy as np

from tests.oracles.parts import block_dense, sigmoid, silu


def run(p, x, *, forget="sigmoid"):
  d = x.shape[1]
  heads, size = p["R"].shape[:2]
  taps = len(p["conv/kernel"])
  h, c, n, seen = np.zeros(d), np.zeros(d), np.zeros(d), [np.zeros(d)] * taps
  y = []
  for token in x:
    seen = [*seen[1:], token]
    u = silu(p["conv/bias"] + sum(k * v for k, v in zip(p["conv/kernel"], seen)))
    gates = []
    for index, (name, read) in enumerate((("i", u), ("f", u), ("z", token), ("o", token))):
      mixed = [h[head * size : (head + 1) * size] @ p["R"][head, :, index] for head in range(heads)]
      gates.append(block_dense(p, f"{name}_proj", read) + np.concatenate(mixed) + p["bias"][index])
    i, f, z, o = gates
    i, f = np.exp(i), sigmoid(f) if forget == "sigmoid" else np.exp(f)
    c = f * c + i * np.tanh(z)
    n = f * n + i
    h = sigmoid(o) * c / n
    normal = [(part - part.mean()) / np.sqrt(part.var() + 1e-5) for part in np.split(h, heads)]
    y.append(np.concatenate(normal) * p["norm/scale"])
  return y
