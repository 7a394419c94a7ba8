"""S4ND, arXiv:2210.06583, sec. 3: the loop over pairs of pixels, documents being images or videos of their own."""

import numpy as np

from tests.oracles.parts import discretize
from tests.oracles.s4 import both, readout

AXES = ("frame", "row", "column")


def axis_taps(p, axis, rank, channel, lags, disc):
  """C A^l B of the state space for each sign of the lag, by lag; that of lag -1 is the first one backwards."""
  part = lambda name, *index: p[f"{axis}_{name}_re"][index] + 1j * p[f"{axis}_{name}_im"][index]
  lam = -np.exp(p[f"{axis}_A_log"][channel]) + 1j * p[f"{axis}_A_im"][channel]
  dt, B = np.exp(p[f"{axis}_log_dt"][channel]), part("B", channel)
  if f"{axis}_P_re" in p:
    # all states in one dense matrix
    P, one = both(part("P", channel)), np.eye(2 * len(lam))
    A = dt / 2 * (np.diag(both(lam)) - np.outer(P, P.conj()))
    below = np.linalg.inv(one - A)
    decay, gain = below @ (one + A), below @ (dt * both(B))
  else:
    decay, gain = discretize(disc, dt, both(lam))
    decay, gain = np.diag(decay), gain * both(B)
  found = {}
  for way in (0, 1):
    h = gain
    for lag in range(lags):
      found[lag if way == 0 else -lag - 1] = (both(part("C", rank, way, channel)) @ h).real
      h = decay @ h
  return found


def run(p, x, *, sizes, disc="zoh"):
  y, axes = [], AXES[-len(sizes) :]
  ranks, _, width, _ = p["row_C_re"].shape
  tap = {}
  for axis in axes:
    found = [[axis_taps(p, axis, rank, channel, len(x), disc) for channel in range(width)] for rank in range(ranks)]
    for lag in found[0][0]:
      tap[axis, lag] = np.array([[found[rank][channel][lag] for channel in range(width)] for rank in range(ranks)])
  place = [np.unravel_index(i, (len(x), *sizes[1:])) for i in range(len(x))]
  for one in range(len(x)):
    out = p["D"] * x[one]
    for other in range(len(x)):
      factors = [tap[axis, int(to - of)] for axis, to, of in zip(axes, place[one], place[other])]
      out = out + np.mean(np.prod(factors, axis=0), axis=0) * x[other]
    y.append(readout(p, out, "glu"))
  return y
