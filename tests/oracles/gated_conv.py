"""LFM2's gated short convolution, arXiv:2511.23404: out(C conv(B v))."""

import numpy as np

from tests.oracles.parts import dense


def run(p, x):
  taps, width = p["conv/kernel"].shape
  seen = [np.zeros(width)] * taps
  y = []
  for u in x:
    B, C, v = np.split(dense(p, "in_proj", u), 3)
    seen = [*seen[1:], B * v]
    conv = sum(k * past for k, past in zip(p["conv/kernel"], seen)) + p.get("conv/bias", 0.0)
    y.append(dense(p, "out_proj", C * conv))
  return y
