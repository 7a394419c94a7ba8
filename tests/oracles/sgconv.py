"""SGConv, arXiv:2210.09298, sec. 3: sub-kernels of equal size, stretched and weighted by scale; then GELU and a GLU."""

import numpy as np

from tests.oracles.parts import dense, gelu, sigmoid, tokens


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


def run(p, x, *, reset=None, lengths=None, activation="glu", **told):
  K = kernel(p, **told)
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    if starts:
      first = time
    out = p["D"] * x[row, time]
    for past in range(first, time + 1):
      out = out + K[:, time - past] * x[row, past]
    if activation != "none":
      out = gelu(out)
    if activation == "glu":
      value, gate = np.split(dense(p, "out_proj", out), 2)
      out = value * sigmoid(gate)
    y[row, time] = out
  return y
