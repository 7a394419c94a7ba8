"""S4ND, arXiv:2210.06583, sec. 3, on images: the double loop over pixels, documents being images of their own."""

import numpy as np

from tests.oracles.parts import dense, discretize, gelu, sigmoid


def axis_tap(p, axis, rank, channel, lag, disc):
  """C A^l B of the state space for the sign of the lag; that of lag -1 is the first one backwards."""
  A = -np.exp(p[f"{axis}_A_log"][channel]) + 1j * p[f"{axis}_A_im"][channel]
  decay, gain = discretize(disc, np.exp(p[f"{axis}_log_dt"][channel]), A)
  way = 0 if lag >= 0 else 1
  C = p[f"{axis}_C_re"][rank, way, channel] + 1j * p[f"{axis}_C_im"][rank, way, channel]
  B = p[f"{axis}_B_re"][channel] + 1j * p[f"{axis}_B_im"][channel]
  return 2 * np.sum(C * decay ** (lag if lag >= 0 else -lag - 1) * gain * B).real


def documents(x, reset, lengths):
  """(row, first, end) of every document."""
  for row in range(x.shape[0]):
    end = x.shape[1] if lengths is None else lengths[row]
    starts = [t for t in range(end) if t == 0 or (reset is not None and reset[row, t])]
    yield from zip([row] * len(starts), starts, [*starts[1:], end])


def run(p, x, *, reset=None, lengths=None, columns, disc="zoh"):
  y = np.zeros_like(x)
  ranks, _, width, _ = p["row_C_re"].shape
  lags = range(1 - x.shape[1], x.shape[1])
  tap = {
    (axis, lag): np.array([[axis_tap(p, axis, r, e, lag, disc) for e in range(width)] for r in range(ranks)])
    for axis in ("row", "column")
    for lag in lags
  }
  for row, first, end in documents(x, reset, lengths):
    for one in range(end - first):
      out = p["D"] * x[row, first + one]
      for other in range(end - first):
        down, right = one // columns - other // columns, one % columns - other % columns
        out = out + np.mean(tap["row", down] * tap["column", right], axis=0) * x[row, first + other]
      value, gate = np.split(dense(p, "out_proj", gelu(out)), 2)
      y[row, first + one] = value * sigmoid(gate)
  return y
