"""DSS, arXiv:2203.14343, prop. 1: the sum over modes of each kernel, and the convolution with it by its definition."""

import numpy as np

from tests.oracles.s4 import readout


def exp_kernel(p, C, dt, lags):
  """Prop. 1(a)."""
  lam = -np.exp(p["lam_log"]) + 1j * p["lam_im"]
  z = dt[:, :1] * lam.real + 1j * dt[:, 1:] * lam.imag
  weights = C * (np.exp(z) - 1) / lam
  return [np.sum(weights * np.exp(z * lag), axis=1).real for lag in range(lags)]


def softmax_kernel(p, C, dt, lags, max_len):
  """Prop. 1(b): every mode's softmax over all lags; the reciprocal of its sum and of lam has an epsilon (sec. 3.3)."""
  K = np.zeros((max_len, len(C)))
  for channel in range(len(C)):
    for n in range(len(p["lam_re"])):
      lam = p["lam_re"][n] + 1j * p["lam_im"][n]
      z = dt[channel, 0] * lam.real + 1j * dt[channel, 1] * lam.imag
      exponents = z * np.arange(max_len)
      if lam.real > 0:
        exponents, z = exponents - exponents[-1], -z
      powers = np.exp(exponents)
      # sum of powers = closed / (e^z - 1), and the reciprocal of closed lam is bounded
      closed = (np.exp(z) - 1) * np.sum(powers) * lam
      bounded = closed.conj() / (np.abs(closed) ** 2 + 1e-7)
      K[:, channel] += (C[channel, n] * (np.exp(z) - 1) * bounded * powers).real
  return K[:lags]


def run(p, x, *, activation="glu", max_len=None):
  C, dt = p["C_re"] + 1j * p["C_im"], np.exp(p["log_dt"])
  K = exp_kernel(p, C, dt, len(x)) if max_len is None else softmax_kernel(p, C, dt, len(x), max_len)
  return [readout(p, p["D"] * u + sum(K[t - s] * x[s] for s in range(t + 1)), activation) for t, u in enumerate(x)]
