"""BaseConv, arXiv:2402.18668: out(SiLU(conv(u)) g)."""

import numpy as np

from tests.oracles.parts import dense, tokens


def run(p, x, *, reset=None, lengths=None):
  taps, inner = p["conv/kernel"].shape
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    if starts:
      seen = [np.zeros(inner)] * taps
    u, g = np.split(dense(p, "in_proj", x[row, time]), 2)
    seen = [*seen[1:], u]
    conv = sum(k * past for k, past in zip(p["conv/kernel"], seen)) + p.get("conv/bias", 0.0)
    y[row, time] = dense(p, "out_proj", conv / (1 + np.exp(-conv)) * g)
  return y
