"""The definition of `rg_lru`: one token after the other."""

from kernels import op
from kernels.rg_lru.gates import gate


def rg_lru(u, r, i, a_param, h, reset, packed):
  """h_t = a_t * h_{t-1} + inflow_t; where `reset` is True h_{t-1} is 0 and the inflow is whole.

  Args:
    packed: whether documents start after a row's first token; before that, h is 0 already where `reset` is True.
  """

  def token(h, inputs):
    u, r, i, reset = inputs
    a, inflow = gate(u, r, i, a_param, reset)
    h = a * op.cleared(reset, h) + inflow
    return h, h

  return op.loop(token, h, (u, r, i, reset))
