"""Titans' memory as a gate, arXiv:2501.00663, eqs. (26)-(28), without persistent tokens in the memory."""

from tests.oracles import softmax, titans
from tests.oracles.matrix_state import rms
from tests.oracles.parts import sigmoid


def run(p, x, *, memory, attention):
  m = titans.run(part(p, "titans"), x, **memory)
  y = softmax.run(part(p, "attention"), x, **attention)
  return [gated(p, *token) for token in zip(y, m)]


def part(p, name):
  """The parameters below a name."""
  return {key.removeprefix(f"{name}/"): value for key, value in p.items() if key.startswith(f"{name}/")}


def gated(p, y, m):
  return rms(y, p["gate/y_norm/scale"]) * sigmoid(rms(m, p["gate/m_norm/scale"]))
