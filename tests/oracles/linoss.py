"""LinOSS, arXiv:2410.03943, and D-LinOSS, arXiv:2505.12171: a step of each oscillator as an equation for z and q."""

import numpy as np

from tests.oracles.parts import gated, sigmoid


def run(p, x, *, disc="im", activation="full_glu"):
  dt = sigmoid(p["logit_dt"])
  A = np.maximum(p["A"], 0)
  G = np.zeros(len(A))
  if disc == "damped":
    G = np.maximum(p["G"], 0)
    edge = 2 * np.sqrt(1 + dt * G)
    A = np.minimum(np.maximum(p["A"], (2 + dt * G - edge) / dt**2), (2 + dt * G + edge) / dt**2)
  B = p["B_re"] + 1j * p["B_im"]
  C = p["C_re"] + 1j * p["C_im"]
  z, q, y = np.zeros(len(A), complex), np.zeros(len(A), complex), []
  for u in x:
    force = B @ u
    for i in range(len(A)):
      # new z = z + dt (force - A q - G new z), with the new q in place of q for "im"; new q = q + dt new z
      implicit, explicit = (A[i], 0.0) if disc == "im" else (0.0, A[i])
      left = np.array([[1 + dt[i] * G[i], dt[i] * implicit], [-dt[i], 1.0]])
      right = np.array([z[i] + dt[i] * (force[i] - explicit * q[i]), q[i]])
      z[i], q[i] = np.linalg.solve(left, right)
    y.append(gated(p, (C @ q).real + p["D"] * u, activation))
  return y
