"""SGConv, arXiv:2210.09298, sec. 3: sub-kernels of equal size, stretched and weighted by scale; then GELU and a GLU."""

import numpy as np

from tests.oracles.s4 import readout


def kernel(p, join="cat", interpolation="linear", decay_min=2.0, decay_max=2.0, learned=False):
  scales, width, size = p["scales"].shape
  K = np.zeros((width, size * 2 ** (scales - 1)))
  for channel in range(width):
    rate = np.linspace(decay_min, decay_max, width)[channel]
    place = 0
    for i in range(scales):
      stretch = 2**i if join == "sum" else 2 ** max(0, i - 1)
      weight = 1.0 if learned else rate ** (scales - i - 1)
      for j in range(size * stretch):
        if interpolation == "nearest":
          value = p["scales"][i, channel, j // stretch]
        else:
          value = np.interp((j + 0.5) / stretch - 0.5, np.arange(size), p["scales"][i, channel])
        K[channel, j if join == "sum" else place + j] += weight * value
      place += size * stretch
    if learned:
      K[channel] *= np.arange(1, K.shape[1] + 1) ** -p["decay_rate"][channel]
  return K / p["norm"][:, None]


def run(p, x, *, activation="glu", **told):
  K = kernel(p, **told)
  return [readout(p, p["D"] * u + sum(K[:, t - s] * x[s] for s in range(t + 1)), activation) for t, u in enumerate(x)]
