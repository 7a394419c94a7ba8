"""Mamba-2, arXiv:2405.21060, eq. (6) and fig. 6, with the input discretised as dt B."""

import numpy as np

from tests.oracles.parts import dense, silu, softplus


def run(p, x, *, state, groups=1, norm="gate_first", norm_groups=1, dt_limit=(0.0, np.inf), ssm_width=None):
  heads = len(p["A_log"])
  inner = ssm_width or p["out_proj/kernel"].shape[0]
  beside = p["out_proj/kernel"].shape[0] - inner
  size = inner // heads
  taps, mixed = p["conv/kernel"].shape
  D = p["D"] if len(p["D"]) == inner else np.repeat(p["D"], size)
  h, seen = np.zeros((heads, size, state)), [np.zeros(mixed)] * taps
  y = []
  for u in x:
    parts = np.cumsum([beside, beside, inner, mixed])
    z0, x0, z, xBC, dt = np.split(dense(p, "in_proj", u), parts)
    seen = [*seen[1:], xBC]
    xBC = silu(p.get("conv/bias", 0.0) + sum(k * v for k, v in zip(p["conv/kernel"], seen)))
    u, B, C = np.split(xBC, [inner, inner + groups * state])
    B, C = B.reshape(groups, state), C.reshape(groups, state)
    out = np.zeros(inner)
    for i in range(heads):
      group, channels = i * groups // heads, slice(i * size, (i + 1) * size)
      step = np.clip(softplus(dt[i] + p["dt_bias"][i]), *dt_limit)
      h[i] = np.exp(-step * np.exp(p["A_log"][i])) * h[i] + step * np.outer(u[channels], B[group])
      out[channels] = h[i] @ C[group] + D[channels] * u[channels]
    together = np.concatenate([silu(z0) * x0, gated(p, out, z, norm, norm_groups)])
    y.append(dense(p, "out_proj", together))
  return y


def gated(p, y, z, norm, groups):
  if norm == "none":
    return y * silu(z)
  if norm == "gate_first":
    return p["gated_norm/scale"] * normalized(y * silu(z), groups)
  assert norm == "norm_first"
  return p["gated_norm/scale"] * normalized(y, groups) * silu(z)


def normalized(y, groups):
  """Each of the equal parts divided by its root mean square."""
  return np.concatenate([part / np.sqrt(np.mean(part**2) + 1e-5) for part in np.split(y, groups)])
