"""GSS, arXiv:2206.13947, fig. 1 and sec. 3.2: the simplified DSS by its kernel, within a gated unit."""

import numpy as np

from tests.oracles.parts import dense, gelu_tanh


def run(p, x):
  lam = -np.exp(p["lam_log"]) + 1j * np.exp(p["lam_im_log"])
  weights = (p["C_re"] + 1j * p["C_im"]) * (np.exp(lam) - 1) / lam
  u, z = gelu_tanh(dense(p, "u_proj", x)), p["D"] * gelu_tanh(dense(p, "u_proj", x))
  for t in range(len(x)):
    for s in range(t + 1):
      z[t] += np.sum(weights * np.exp(lam * (t - s)), axis=1).real * u[s]
  return dense(p, "out_proj", dense(p, "y_proj", z) * gelu_tanh(dense(p, "v_proj", x)))
