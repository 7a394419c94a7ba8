"""Gated DeltaProduct, arXiv:2502.10297, sec. 4: the product of a token's Householder matrices, written out."""

import numpy as np

from tests.oracles.matrix_state import no_inputs, rms, unit
from tests.oracles.parts import dense, sigmoid, silu, softplus


def run(p, x, *, key_heads, heads, products, beta_most=2, decay=True):
  seen, S, y = no_inputs(p), None, []
  for u in x:
    seen = [*seen[1:], np.concatenate([dense(p, f"qkv/{name}", u) for name in ("q_proj", "k_proj", "v_proj")])]
    mixed = silu(sum(tap * each for tap, each in zip(p["qkv/conv/kernel"], seen)))
    size = p["qkv/q_proj/kernel"].shape[1] // key_heads
    q = mixed[: key_heads * size].reshape(key_heads, size)
    k = mixed[key_heads * size : (1 + products) * key_heads * size].reshape(products, key_heads, size)
    v = mixed[(1 + products) * key_heads * size :].reshape(products, heads, -1)
    beta = beta_most * sigmoid(dense(p, "b_proj", u)).reshape(products, heads)
    a = np.exp(-np.exp(p["A_log"]) * softplus(dense(p, "a_proj", u) + p["dt_bias"])) if decay else np.ones(heads)
    g = dense(p, "g_proj", u).reshape(heads, -1)
    S = np.zeros((heads, size, v.shape[2])) if S is None else S
    out = []
    for i in range(heads):
      of_keys = i * key_heads // heads
      transition, written = a[i] * np.eye(size), np.zeros_like(S[i])
      for j in range(products):
        key = unit(k[j, of_keys])
        mirror = np.eye(size) - beta[j, i] * np.outer(key, key)
        transition = mirror @ transition
        written = mirror @ written + beta[j, i] * np.outer(key, v[j, i])
      S[i] = transition @ S[i] + written
      out.append(rms(unit(q[of_keys]) @ S[i] / np.sqrt(size), p["gated_norm/scale"]) * silu(g[i]))
    y.append(dense(p, "out_proj", np.concatenate(out)))
  return y
