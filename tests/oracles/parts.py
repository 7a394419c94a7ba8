"""What several oracles need: the tokens of a row one after the other, and the elementary functions."""

import math

import numpy as np


def tokens(x, reset, lengths):
  """(row, time, whether a document starts) of every token that is there."""
  for row in range(x.shape[0]):
    for time in range(x.shape[1] if lengths is None else lengths[row]):
      yield row, time, time == 0 or (reset is not None and bool(reset[row, time]))


def documents(x, reset, lengths):
  """(row, first, end) of every document."""
  for row in range(x.shape[0]):
    end = x.shape[1] if lengths is None else lengths[row]
    starts = [t for t in range(end) if t == 0 or (reset is not None and reset[row, t])]
    yield from zip([row] * len(starts), starts, [*starts[1:], end])


def dense(p, name, x):
  return x @ p[f"{name}/kernel"] + p.get(f"{name}/bias", 0.0)


def block_dense(p, name, x):
  """Slice i of x by block i."""
  kernel = p[f"{name}/kernel"]
  slices = np.split(x, len(kernel))
  return np.concatenate([u @ block for u, block in zip(slices, kernel)]) + p.get(f"{name}/bias", 0.0)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def silu(x):
  return x * sigmoid(x)


def softplus(x):
  return np.log1p(np.exp(x))


def gelu(x):
  """x P(N(0, 1) <= x)."""
  return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def gelu_tanh(x):
  """The approximation of Hendrycks & Gimpel 2016, which Flax calls gelu."""
  return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def discretize(rule, dt, A):
  """Abar and Bbar / B of a diagonal A."""
  if rule == "zoh":
    return np.exp(dt * A), (np.exp(dt * A) - 1) / A
  assert rule == "bilinear"
  return (1 + dt * A / 2) / (1 - dt * A / 2), dt / (1 - dt * A / 2)


def gated(p, y, activation):
  """What follows S5 and its kin: arXiv:2208.04933, app. G."""
  g = gelu_tanh(y)
  if activation == "none":
    return y
  if activation in ("gelu", "gelu_tanh"):
    return gelu(y) if activation == "gelu" else g
  gate = sigmoid(dense(p, "gate", g))
  if activation == "half_glu1":
    return g * gate
  if activation == "half_glu2":
    return y * gate
  assert activation == "full_glu"
  return dense(p, "out_proj", g) * gate
