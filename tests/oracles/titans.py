"""Titans' memory, arXiv:2501.00663, sec. 3.1 and 3.2: gradients written out for a network of any depth."""

import numpy as np

from tests.oracles.matrix_state import convolved, no_inputs, rms, unit
from tests.oracles.parts import dense, sigmoid, silu


def run(p, x, **kwargs):
  memory = Memory(p, x.shape[1], **kwargs)
  return [memory.learn(u) for u in x]


class Memory:
  """Of one document."""

  def __init__(self, p, width, *, heads, layers, chunk, rate_max=0.5, bounded=True, momentum=True, decay=True):
    self.p, self.heads, self.chunk, self.rate_max = p, heads, chunk, rate_max
    self.momentum, self.decay = momentum, decay
    size = width // heads
    self.bounded, self.seen, self.count = bounded, no_inputs(p), 0
    self.M = [
      [p[f"M_{layer}"][i] if layers > 1 else np.zeros((size, size)) for layer in range(layers)] for i in range(heads)
    ]
    self.S = [[np.zeros_like(W) for W in weights] for weights in self.M]

  def weights(self):
    return [list(weights) for weights in self.M]

  def out(self, M, q):
    """Of weights that stay as they are."""
    answers = [rms(passed(M[i], q[i])[-1], self.p["norm/scale"]) for i in range(self.heads)]
    return dense(self.p, "out_proj", np.concatenate(answers))

  def recall(self, M, q):
    return self.out(M, [unit(part) for part in silu(q).reshape(self.heads, -1)])

  def learn(self, x):
    if self.count % self.chunk == 0:
      self.began = self.weights()
    self.count += 1
    q, k, v = convolved(self.p, x, self.seen, self.heads, self.heads)
    gates = list(sigmoid(dense(self.p, "gates", x)).reshape(-1, self.heads))
    theta = self.rate_max * gates.pop(0)
    eta = gates.pop(0) if self.momentum else np.zeros(self.heads)
    alpha = gates.pop(0) if self.decay else np.zeros(self.heads)
    for i in range(self.heads):
      gradients, step = gradient(self.began[i], k[i], v[i]), theta[i]
      error = 2 * (passed(self.began[i], k[i])[-1] - v[i])
      if self.bounded:
        eta[i] = min(eta[i], 1 - 1 / max(self.chunk, 2))
        curvature = sum((g**2).sum() for g in gradients) / (error @ error)
        step = min(step, (1 - eta[i]) / (2 * self.chunk * curvature))
      for layer, g in enumerate(gradients):
        self.S[i][layer] = eta[i] * self.S[i][layer] - step * g
        self.M[i][layer] = (1 - alpha[i]) * self.M[i][layer] + self.S[i][layer]
    return self.out(self.M, q)


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
