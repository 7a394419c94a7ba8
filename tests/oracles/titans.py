"""Titans' memory, arXiv:2501.00663, sec. 3.1 and 3.2: gradients written out for a network of any depth."""

import numpy as np

from tests.oracles.matrix_state import convolved, no_inputs, rms
from tests.oracles.parts import dense, sigmoid, silu, tokens


def run(p, x, *, reset=None, lengths=None, heads, layers, chunk, rate_max=0.5, momentum=True, decay=True):
  y = np.zeros_like(x)
  size = x.shape[2] // heads
  for row, time, starts in tokens(x, reset, lengths):
    if starts:
      seen, count = no_inputs(p), 0
      M = [
        [p[f"M_{layer}"][i] if layers > 1 else np.zeros((size, size)) for layer in range(layers)] for i in range(heads)
      ]
      S = [[np.zeros_like(W) for W in weights] for weights in M]
    if count % chunk == 0:
      began = [list(weights) for weights in M]
    count += 1
    q, k, v = convolved(p, x[row, time], seen, heads, heads)
    gates = list(sigmoid(dense(p, "gates", x[row, time])).reshape(-1, heads))
    theta = rate_max * gates.pop(0)
    eta = gates.pop(0) if momentum else np.zeros(heads)
    alpha = gates.pop(0) if decay else np.zeros(heads)
    out = []
    for i in range(heads):
      for layer, g in enumerate(gradient(began[i], k[i], v[i])):
        S[i][layer] = eta[i] * S[i][layer] - theta[i] * g
        M[i][layer] = (1 - alpha[i]) * M[i][layer] + S[i][layer]
      out.append(rms(passed(M[i], q[i])[-1], p["norm/scale"]))
    y[row, time] = dense(p, "out_proj", np.concatenate(out))
  return y


def passed(weights, x):
  """What leaves each layer."""
  left = []
  for W in weights:
    x = (silu(x) if left else x) @ W
    left.append(x)
  return left


def gradient(weights, k, v):
  """Of |M(k) - v|^2 in each matrix, from the last layer back."""
  left = passed(weights, k)
  delta, found = 2 * (left[-1] - v), []
  for layer in reversed(range(len(weights))):
    below = left[layer - 1] if layer else None
    found.insert(0, np.outer(silu(below) if layer else k, delta))
    if layer:
      slope = sigmoid(below) * (1 + below * (1 - sigmoid(below)))
      delta = (weights[layer] @ delta) * slope
  return found
