"""`rg_lru` as its gates, all tokens at once, and `linear_scan`."""

from jaxtyping import Array, Bool, Float

from kernels.linear_scan import linear_scan
from kernels.rg_lru.gates import gate


def rg_lru(
  u: Float[Array, "b t e"],
  r: Float[Array, "b t e"],
  i: Float[Array, "b t e"],
  a_param: Float[Array, "e"],
  h: Float[Array, "b e"],
  reset: Bool[Array, "b t"] | None,
  packed: bool,
) -> tuple[Float[Array, "b t e"], Float[Array, "b e"]]:
  """See `reference.rg_lru`."""
  a, inflow = gate(u, r, i, a_param, reset)
  return linear_scan(a, inflow, h, reset=reset if packed else None)
