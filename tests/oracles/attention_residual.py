"""Attention over the outputs of earlier layers: arXiv:2603.15031, sec. 3, eqs. (2) to (6), by token."""

import numpy as np

from tests.oracles.parts import dense, silu


def attend(query, scale, sources, eps=1e-5):
  """Eqs. (2) to (4): a query of its own, and as keys the sources, normalised."""
  logits = np.stack([(scale * rms_normed(v, eps)) @ query for v in sources])
  weights = np.exp(logits - logits.max(axis=0))
  return sum(a[..., None] * v for a, v in zip(weights / weights.sum(axis=0), sources))


def rms_normed(x, eps=1e-5):
  return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps)


def layers(x, blocks, run):
  """What there is after all layers, blocks[n] of them in block n: x and sums of outputs. run(i, sources) is layer i."""
  sources, i = [x], 0
  for count in blocks:
    partial = None
    for _ in range(count):
      y = run(i, sources if partial is None else [*sources, partial])
      partial, i = y if partial is None else partial + y, i + 1
    sources.append(partial)
  return sources


def run(p, x, *, depth, block, layers_done=None):
  """One layer: the one after those that are done."""
  y, n = [], 1 + -(-depth // block)
  done = np.zeros((len(x), depth)) if layers_done is None else layers_done
  for u, before in zip(x, done):
    count, sources = int(before.sum()), u.reshape(n, -1).copy()
    there = sources[: 1 + -(-count // block)]
    z = attend(p["depth_attention/query"], p["depth_attention/norm/scale"], there)
    z = rms_normed(z) * p["norm/scale"]
    sources[1 + count // block] += dense(p, "inner/out_proj", silu(dense(p, "inner/in_proj", z)))
    y.append(sources.reshape(-1))
  return y
