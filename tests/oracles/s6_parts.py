"""S6, arXiv:2312.00752, alg. 2, on the tokens of one document; and the short convolution before it."""

import numpy as np

from tests.oracles.s6 import run


def scan(p, u):
  """p has W_x, W_dt, A_log and D under their names; u is a document's tokens."""
  return run(p, u[None])[0]


def under(p, prefix):
  """The parameters below a name."""
  return {name.removeprefix(prefix): value for name, value in p.items() if name.startswith(prefix)}


def conv(p, name, u):
  """A causal depthwise convolution of a document's tokens."""
  kernel = p[f"{name}/kernel"]
  padded = np.concatenate([np.zeros((len(kernel) - 1, u.shape[1])), u])
  return sum(tap * padded[i : i + len(u)] for i, tap in enumerate(kernel)) + p.get(f"{name}/bias", 0.0)
