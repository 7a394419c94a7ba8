"""Liquid-S4, arXiv:2209.12951, sec. 3: S4D's recurrence, and products of inputs, which last ("kb") or not ("pb").

And the products of the authors' code, as it makes them: all sets of the last few places, turned around in time.
"""

import itertools

import numpy as np

from tests.oracles.parts import discretize
from tests.oracles.s4 import readout


def official_product(u, order):
  """For every token of a document; sets of places in lexicographic order, the last as many as there are tokens."""
  sets = list(itertools.combinations(range(len(u)), order))[-len(u) :]
  found = [np.prod(u[list(places)]) for places in sets][::-1]
  return np.array(found + [0.0] * (len(u) - len(found)))


def neighbours(u, order):
  return np.array([np.prod(u[time - order + 1 : time + 1]) if time >= order - 1 else 0.0 for time in range(len(u))])


def channel(p, i, u, degree, disc, kernel, official):
  """Outputs of one channel for one document."""
  A = -np.exp(p["ssm/A_log"][i]) + 1j * p["ssm/A_im"][i]
  B, C = (p[f"ssm/{name}_re"][i] + 1j * p[f"ssm/{name}_im"][i] for name in "BC")
  decay, gain = discretize(disc, np.exp(p["ssm/log_dt"][i]), A)
  Bbar = gain * B
  products = {order: (official_product if official else neighbours)(u, order) for order in range(2, degree + 1)}
  powers = {order: Bbar**order for order in products}
  if official:
    full, powers = np.concatenate([Bbar, Bbar.conj()]), {}
    for order in products:
      # the product of all pairs of states, summed over one of them
      full = np.outer(full, full).sum(axis=1)
      powers[order] = full[: len(Bbar)]
  h, y = np.zeros(len(A), complex), np.zeros(len(u))
  for time in range(len(u)):
    h = decay * h + Bbar * u[time]
    for order, product in products.items():
      if kernel == "kb":
        h = h + powers[order] * product[time]
      else:
        y[time] += 2 * np.sum(C * powers[order]).real * product[time]
    y[time] += 2 * np.sum(C * h).real + p["ssm/D"][i] * u[time]
  return y


def run(p, x, *, degree, disc="bilinear", kernel="pb", form="causal", activation="glu"):
  each = [channel(p, i, x[:, i], degree, disc, kernel, form == "official") for i in range(x.shape[1])]
  return [readout(p, out, activation) for out in np.transpose(each)]
