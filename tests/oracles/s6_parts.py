"""What stands around S6, arXiv:2312.00752: parameters by their prefix, and the short convolution before it."""

import numpy as np


def under(p, prefix):
  """The parameters below a name."""
  return {name.removeprefix(prefix): value for name, value in p.items() if name.startswith(prefix)}


def conv(p, name, u):
  """A causal depthwise convolution of a document's tokens."""
  kernel = p[f"{name}/kernel"]
  padded = np.concatenate([np.zeros((len(kernel) - 1, u.shape[1])), u])
  return sum(tap * padded[i : i + len(u)] for i, tap in enumerate(kernel)) + p.get(f"{name}/bias", 0.0)
