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
  first: Bool[Array, "b t"] | None,
  keep: Bool[Array, "b t"] | None,
) -> tuple[Float[Array, "b t e"], Float[Array, "b e"]]:
  """See `reference.rg_lru`."""
  a, inflow = gate(u, r, i, a_param, first)
  return linear_scan(a, inflow, h, reset=None if keep is None else ~keep)
