"""What the oracles of attention/recurrent share: convolved queries, keys and values, unit vectors and norms by head."""

import numpy as np

from tests.oracles.parts import dense, silu


def unit(x):
  return x / np.sqrt(np.sum(x**2) + 1e-6)


def rms(x, scale, eps=1e-5):
  return scale * x / np.sqrt(np.mean(x**2) + eps)


def group_norm(x, heads, scale, bias, eps):
  """Every head's part with mean 0 and variance 1."""
  parts = [(part - part.mean()) / np.sqrt(part.var() + eps) for part in np.split(x, heads)]
  return np.concatenate(parts) * scale + bias


def low_rank(p, name, x, f=lambda z: z):
  return dense(p, f"{name}/up", f(dense(p, f"{name}/down", x)))


def convolved(p, x, seen, key_heads, heads):
  """q, k and v of each head of values from the last inputs of the convolution, x being the newest."""
  names = "q_proj", "k_proj", "v_proj"
  seen[:] = [*seen[1:], np.concatenate([dense(p, f"qkv/{name}", x) for name in names])]
  mixed = silu(sum(tap * u for tap, u in zip(p["qkv/conv/kernel"], seen)))
  keys = p["qkv/q_proj/kernel"].shape[1]
  q, k, v = np.split(mixed, [keys, 2 * keys])
  by_head = lambda z, count: z.reshape(count, -1)
  q, k = ([unit(by_head(z, key_heads)[head * key_heads // heads]) for head in range(heads)] for z in (q, k))
  return q, k, by_head(v, heads)


def no_inputs(p):
  """What the convolution has seen before a document."""
  taps, width = p["qkv/conv/kernel"].shape
  return [np.zeros(width)] * taps
