"""SS2D, arXiv:2401.10166, sec. 4.3: the pixels along rows and columns, and back, each by a state space of its own."""

import numpy as np

from tests.oracles.parts import dense, silu
from tests.oracles.s6 import run as scan
from tests.oracles.s6_parts import under


def convolved(p, u, columns):
  """Each pixel's neighbours, found by their row and column."""
  kernel, y = p["conv/kernel"], np.zeros_like(u)
  reach = len(kernel) // 2
  for pixel in range(len(u)):
    for other in range(len(u)):
      down, right = other // columns - pixel // columns, other % columns - pixel % columns
      if max(abs(down), abs(right)) <= reach:
        y[pixel] += kernel[reach + down, reach + right] * u[other]
  return y + p.get("conv/bias", 0.0)


def run(p, x, *, columns):
  paths = under(p, "paths/")
  size = len(paths["D"]) // 4
  u = silu(convolved(p, dense(p, "in_proj", x), columns))
  pixels = range(len(x))
  by_column = sorted(pixels, key=lambda pixel: (pixel % columns, pixel // columns))
  total = np.zeros_like(u)
  for k, path in enumerate([list(pixels), by_column, list(pixels)[::-1], by_column[::-1]]):
    own = slice(k * size, (k + 1) * size)
    part = {name: paths[name][own] for name in ("A_log", "D", "dt_proj/bias")}
    part |= {f"{name}/kernel": paths[f"{name}/kernel"][k] for name in ("x_proj", "dt_proj")}
    total[path] += scan(part, u[path])
  centred = total - total.mean(-1, keepdims=True)
  normed = centred / np.sqrt(np.mean(centred**2, -1, keepdims=True) + 1e-5)
  return dense(p, "out_proj", normed * p["out_norm/scale"] + p["out_norm/bias"])
