"""Linformer, arXiv:2006.04768, sec. 4."""

import numpy as np

from tests.oracles.parts import dense


def weights_of(scores):
  powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
  return powers / powers.sum(axis=-1, keepdims=True)


def run(p, x, *, heads):
  size = x.shape[1] // heads
  E = p["E"]
  F = p.get("F", E)
  q, k, v = (dense(p, f"qkv/{name}", x) for name in ("q_proj", "k_proj", "v_proj"))
  n, out = len(x), np.zeros_like(q)
  for part in np.split(np.arange(x.shape[1]), heads):
    out[:, part] = weights_of(q[:, part] @ (E[:n].T @ k[:, part]).T / size**0.5) @ (F[:n].T @ v[:, part])
  return dense(p, "qkv/out_proj", out)
