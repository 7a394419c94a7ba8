"""Hyena, arXiv:2302.10866, def. 3.1 and sec. 3.3: gates and implicitly given convolutions by turns."""

import numpy as np

from tests.oracles.parts import dense


def filters(p, lags, order, max_len, shift):
  """Lists by order of taps by lag and channel of a head."""
  width = p["b"].shape[1]
  features = p["filter_layers_0/kernel"].shape[0]
  bands = (features - 1) // 2
  found = np.zeros((order - 1, lags, width))
  for lag in range(lags):
    time = lag / (max_len - 1)
    waves = [np.exp(-1j * f * 2 * np.pi * lag / max_len) for f in np.linspace(1e-4, bands - 1, bands)]
    h = np.array([time, *[z.real for z in waves], *[z.imag for z in waves]])
    layers = len([name for name in p if name.startswith("filter_layers") and name.endswith("kernel")])
    for layer in range(layers):
      h = np.sin(p["w"][min(layer, len(p["w"]) - 1)] * dense(p, f"filter_layers_{layer}", h))
    h = dense(p, "filter_out", h)
    delta = np.linspace(np.log(0.01) / 1.5, np.log(0.01) / 0.3, width * (order - 1))
    h = h * (np.exp(-time * np.abs(delta)) + shift)
    for channel in range(width):
      for o in range(order - 1):
        found[o, lag, channel] = h[channel * (order - 1) + o]
  return found


def run(p, x, *, order=2, max_len, shift=0.0, heads=1, outer_mixing=False):
  h = np.tile(filters(p, len(x), order, max_len, shift), (1, 1, heads))
  b = np.tile(p["b"], (1, heads))
  width, taps = x.shape[1], len(p["conv/kernel"])
  projected = [np.zeros((order + 1) * width)] * taps
  seen = [[] for _ in range(order - 1)]
  y = []
  for u in x:
    projected = [*projected[1:], dense(p, "in_proj", u)]
    inner = p["conv/bias"] + sum(k * u for k, u in zip(p["conv/kernel"], projected))
    slices = np.split(inner, heads * (order + 1))
    *gates, z = [np.concatenate(slices[i :: order + 1]) for i in range(order + 1)]
    for o in range(order - 1):
      if outer_mixing:
        pairs = zip(np.split(gates[o], heads), np.split(z, heads))
        seen[o].append(np.concatenate([np.outer(gate, part).sum(axis=0) for gate, part in pairs]))
      else:
        seen[o].append(gates[o] * z)
      z = b[o] * seen[o][-1] + sum(h[o, len(seen[o]) - 1 - i] * u for i, u in enumerate(seen[o]))
    y.append(dense(p, "out_proj", gates[-1] * z))
  return y
