"""Titans' memory as a gate, arXiv:2501.00663, eqs. (26)-(28), without persistent tokens in the memory."""

import numpy as np

from tests.oracles import softmax, titans
from tests.oracles.matrix_state import rms
from tests.oracles.parts import sigmoid, tokens


def run(p, x, *, reset=None, lengths=None, memory, attention):
  m = titans.run(part(p, "titans"), x, reset=reset, lengths=lengths, **memory)
  y = softmax.run(part(p, "attention"), x, reset=reset, lengths=lengths, **attention)
  out = np.zeros_like(x)
  for row, time, _ in tokens(x, reset, lengths):
    out[row, time] = gated(p, y[row, time], m[row, time])
  return out


def part(p, name):
  """The parameters below a name."""
  return {key.removeprefix(f"{name}/"): value for key, value in p.items() if key.startswith(f"{name}/")}


def gated(p, y, m):
  return rms(y, p["gate/y_norm/scale"]) * sigmoid(rms(m, p["gate/m_norm/scale"]))
