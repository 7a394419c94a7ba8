"""What several oracles need: how documents make rows, and the elementary functions."""

import math

import numpy as np


def by_document(run, p, x, *, reset=None, lengths=None, side=None, **kwargs):
  """An oracle on each document of rows "b t d" by itself; zeros past the lengths. `side` has an entry a token."""
  y = np.zeros_like(x)
  for row, end in enumerate([x.shape[1]] * len(x) if lengths is None else lengths):
    starts = [t for t in range(end) if t == 0 or (reset is not None and reset[row, t])]
    for first, last in zip(starts, [*starts[1:], end]):
      own = {name: value[row, first:last] for name, value in (side or {}).items()}
      y[row, first:last] = run(p, x[row, first:last], **own, **kwargs)
  return y


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
