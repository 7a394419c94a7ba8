"""Mamba, arXiv:2312.00752, alg. 2 and fig. 3, with the input discretised as dt B."""

import numpy as np

from tests.oracles.parts import dense, silu, softplus, tokens


def run(p, x, *, reset=None, lengths=None):
  A = -np.exp(p["A_log"])
  inner, state = A.shape
  taps = len(p["conv/kernel"])
  rank = p["dt_proj/kernel"].shape[0]
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    if starts:
      h, seen = np.zeros((inner, state)), [np.zeros(inner)] * taps
    u, z = np.split(dense(p, "in_proj", x[row, time]), 2)
    seen = [*seen[1:], u]
    u = silu(p.get("conv/bias", 0.0) + sum(k * v for k, v in zip(p["conv/kernel"], seen)))
    delta, B, C = np.split(dense(p, "x_proj", u), [rank, rank + state])
    dt = softplus(dense(p, "dt_proj", delta))
    out = np.zeros(inner)
    for i in range(inner):
      h[i] = np.exp(dt[i] * A[i]) * h[i] + dt[i] * B * u[i]
      out[i] = C @ h[i] + p["D"][i] * u[i]
    y[row, time] = dense(p, "out_proj", out * silu(z))
  return y
