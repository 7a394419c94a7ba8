"""Mamba-3, arXiv:2603.15569: the trapezoidal recurrence of real states, with keys and queries turned by angles."""

import numpy as np

from tests.oracles.parts import dense, sigmoid, silu, softplus


def run(p, x, *, state, groups=1, rank=1, pairs, A="heavy_tail", out_norm=False):
  heads = len(p["D"])
  inner = p["out_proj/kernel"].shape[0]
  size, mixed = inner // heads, rank * groups * state
  ones = np.ones((rank, heads, size))
  mimo_u, mimo_z, mimo_o = (p.get(f"mimo_{name}", ones) for name in "uzo")
  S, theta = np.zeros((heads, size, state)), np.zeros((heads, pairs))
  k_before, u_before = np.zeros((rank, heads, state)), np.zeros((heads, size))
  y = []
  for u in x:
    parts = np.split(dense(p, "in_proj", u), np.cumsum([inner, inner, mixed, mixed, heads, heads, heads]))
    z, u, B, C, dt, dd_A, trap, angle = parts
    z, u = z.reshape(heads, size), u.reshape(heads, size)
    B, C = B.reshape(rank, groups, state), C.reshape(rank, groups, state)
    k, out = np.zeros((rank, heads, state)), np.zeros((heads, size))
    for h in range(heads):
      group = h * groups // heads
      step, lam = softplus(dt[h] + p["dt_bias"][h]), sigmoid(trap[h])
      alpha = np.exp(-step * max(decay_rate(A, dd_A[h]), 1e-4))
      theta[h] += np.pi * np.tanh(angle) * step
      S[h] *= alpha
      for r in range(rank):
        k[r, h] = turned(theta[h], normalized(B[r, group]) * p["B_norm/scale"] + p["B_bias"][r, h])
        S[h] += (1 - lam) * step * alpha * np.outer(mimo_u[r, h] * u_before[h], k_before[r, h])
        S[h] += lam * step * np.outer(mimo_u[r, h] * u[h], k[r, h])
      for r in range(rank):
        q = turned(theta[h], normalized(C[r, group]) * p["C_norm/scale"] + p["C_bias"][r, h])
        read = S[h] @ q + p["D"][h] * mimo_u[r, h] * u[h]
        if out_norm:
          read = normalized(read) * p["gated_norm/scale"].reshape(heads, size)[h]
        out[h] += mimo_o[r, h] * read * silu(mimo_z[r, h] * z[h])
    k_before, u_before = k, u
    y.append(dense(p, "out_proj", out.reshape(inner)))
  return y


def decay_rate(kind, x):
  if kind == "softplus":
    return softplus(x)
  assert kind == "heavy_tail"
  return 1 + x if x >= 0 else 1 / (1 - x)


def normalized(x):
  return x / np.sqrt(np.mean(x**2) + 1e-5)


def turned(theta, x):
  """Each angle's pair of neighbours, by a rotation matrix; the rest as it is."""
  y = x.copy()
  for i, angle in enumerate(theta):
    c, s = np.cos(angle), np.sin(angle)
    y[2 * i : 2 * i + 2] = np.array([[c, -s], [s, c]]) @ x[2 * i : 2 * i + 2]
  return y
