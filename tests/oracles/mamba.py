"""Mamba, arXiv:2312.00752, alg. 2 and fig. 3, with the input discretised as dt B or held (sec. 2, eq. 4)."""

import numpy as np

from tests.oracles.parts import dense, silu, softplus


def run(p, x, *, disc="euler", groups=1, heads=1, norms="none", norm_eps=1e-6):
  p = joined(p) if heads > 1 else p
  A = -np.exp(p["A_log"])
  if "A_im" in p:
    A = A + 1j * p["A_im"]
  inner, state = A.shape
  numbers = groups * state * (2 if "A_im" in p else 1)
  taps = len(p["conv/kernel"])
  rank = p["dt_proj/kernel"].shape[0]
  h, seen = np.zeros((inner, state), A.dtype), [np.zeros(inner)] * taps
  y = []
  for u in x:
    u, z = np.split(dense(p, "in_proj", u), 2)
    seen = [*seen[1:], u]
    u = silu(p.get("conv/bias", 0.0) + sum(k * v for k, v in zip(p["conv/kernel"], seen)))
    delta, B, C = np.split(dense(p, "x_proj", u), [rank, rank + numbers])
    if norms != "none":
      delta, B, C = (
        rms(z, p.get(f"{name}_norm/scale", 1.0), norm_eps) for name, z in (("dt", delta), ("B", B), ("C", C))
      )
    dt = softplus(dense(p, "dt_proj", delta))
    out = np.zeros(inner)
    for i in range(inner):
      # neighbours share a group; a group of complex numbers is its real parts, then its imaginary ones
      group = i * groups // inner
      B_i, C_i = (z.reshape(groups, -1)[group] for z in (B, C))
      if "A_im" in p:
        B_i, C_i = (z[:state] + 1j * z[state:] for z in (B_i, 2 * C_i))
      held = dt[i] if disc == "euler" else (np.exp(dt[i] * A[i]) - 1) / A[i]
      h[i] = np.exp(dt[i] * A[i]) * h[i] + held * B_i * u[i]
      out[i] = (C_i @ h[i]).real + p["D"][i] * u[i]
    y.append(dense(p, "out_proj", out * silu(z)))
  return y


def joined(p):
  """The maps of the heads as one map each, with zeros between the heads: all delta, then all B, then all C."""
  maps, steps = p["x_proj/kernel"], p["dt_proj/kernel"]
  rank = steps.shape[1]
  parts = np.split(maps, [rank, (maps.shape[-1] + rank) // 2], axis=-1)
  return {**p, "x_proj/kernel": np.concatenate(list(map(diagonal, parts)), axis=1), "dt_proj/kernel": diagonal(steps)}


def diagonal(blocks):
  heads, rows, columns = blocks.shape
  spread = np.zeros((heads, rows, heads, columns))
  spread[np.arange(heads), :, np.arange(heads)] = blocks
  return spread.reshape(heads * rows, heads * columns)


def rms(z, scale, eps):
  return z / np.sqrt(np.mean(z**2) + eps) * scale
