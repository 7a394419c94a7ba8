"""Modal Hyena, arXiv:2310.18780, sec. 2: gates around a convolution with sums of complex exponentials."""

import numpy as np

from tests.oracles.parts import dense
from tests.oracles.s6_parts import conv


def run(p, x):
  poles = np.exp(-np.exp(p["decay_log"]) + 1j * p["angle"])
  residues = p["R_re"] + 1j * p["R_im"]
  gate, before, v = np.split(conv(p, "conv", dense(p, "in_proj", x)), 3, axis=-1)
  u = before * v
  z = p["D"] * u
  for t in range(len(u)):
    for lag in range(t + 1):
      z[t] += np.sum(residues * poles**lag, axis=1).real * u[t - lag]
  return dense(p, "out_proj", gate * z)
