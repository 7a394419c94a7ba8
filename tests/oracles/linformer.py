"""Linformer, arXiv:2006.04768, sec. 4."""

import numpy as np

from tests.oracles.parts import dense, documents


def weights_of(scores):
  powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
  return powers / powers.sum(axis=-1, keepdims=True)


def run(p, x, *, reset=None, lengths=None, heads):
  y, size = np.zeros_like(x), x.shape[-1] // heads
  E = p["E"]
  F = p.get("F", E)
  for row, first, end in documents(x, reset, lengths):
    q, k, v = (dense(p, f"qkv/{name}", x[row, first:end]) for name in ("q_proj", "k_proj", "v_proj"))
    n, out = end - first, np.zeros_like(q)
    for part in np.split(np.arange(x.shape[-1]), heads):
      out[:, part] = weights_of(q[:, part] @ (E[:n].T @ k[:, part]).T / size**0.5) @ (F[:n].T @ v[:, part])
    y[row, first:end] = dense(p, "qkv/out_proj", out)
  return y
