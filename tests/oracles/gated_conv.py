"""LFM2's gated short convolution, arXiv:2511.23404: out(C conv(B v))."""

import numpy as np

from tests.oracles.parts import dense, tokens


def run(p, x, *, reset=None, lengths=None):
  taps, width = p["conv/kernel"].shape
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    if starts:
      seen = [np.zeros(width)] * taps
    B, C, v = np.split(dense(p, "in_proj", x[row, time]), 3)
    seen = [*seen[1:], B * v]
    conv = sum(k * past for k, past in zip(p["conv/kernel"], seen)) + p.get("conv/bias", 0.0)
    y[row, time] = dense(p, "out_proj", C * conv)
  return y
