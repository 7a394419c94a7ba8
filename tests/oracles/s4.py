"""S4, arXiv:2111.00396: the dense matrix diag(lam) - P P* of all states, Tustin's rule by a solve, token by token."""

import numpy as np

from tests.oracles.parts import dense, gelu, sigmoid


def run(p, x, *, step_rescale=1.0, activation="glu"):
  part = lambda name: p[f"{name}_re"] + 1j * p[f"{name}_im"]
  lam, P, B, C = (both(z) for z in (-np.exp(p["A_log"]) + 1j * p["A_im"], part("P"), part("B"), part("C")))
  width, n = C.shape
  one = np.eye(n)
  decay, gain = np.zeros((width, n, n), complex), np.zeros((width, n), complex)
  for i in range(width):
    copy = i % len(lam)
    dt = step_rescale * np.exp(p["log_dt"][i])
    A = np.diag(lam[copy]) - np.outer(P[copy], P[copy].conj())
    below = np.linalg.inv(one - dt / 2 * A)
    decay[i], gain[i] = below @ (one + dt / 2 * A), below @ (dt * B[copy])
  h, y = np.zeros((width, n), complex), []
  for u in x:
    out = np.zeros(width)
    for i in range(width):
      h[i] = decay[i] @ h[i] + gain[i] * u[i]
      out[i] = (C[i] @ h[i]).real + p["D"][i] * u[i]
    y.append(readout(p, out, activation))
  return y


def both(z):
  """Each stored number and its conjugate."""
  return np.concatenate([z, z.conj()], axis=-1)


def readout(p, y, activation):
  """GELU and the gated linear map that follow a state space."""
  if activation == "none":
    return y
  y = gelu(y)
  if activation == "gelu":
    return y
  value, gate = np.split(dense(p, "out_proj", y), 2)
  return value * sigmoid(gate)
