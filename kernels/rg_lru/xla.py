"""`rg_lru` as its gates, all tokens at once, and `linear_scan`."""

from kernels.linear_scan import linear_scan
from kernels.rg_lru.gates import gate


def rg_lru(u, r, i, a_param, h, reset, packed):
  """Computes `reference.rg_lru`."""
  a, inflow = gate(u, r, i, a_param, reset)
  return linear_scan(a, inflow, h, reset=reset if packed else None)
