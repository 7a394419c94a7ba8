"""The definition of `rg_lru`: one token after the other."""

from jaxtyping import Array, Bool, Float

from kernels import op
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
  """h_t = a_t * h_{t-1} + inflow_t, with h_{t-1} = 0 where `keep` is False, and a whole inflow where `first` is True.

  What is not kept is first; what is first and kept finds a state of 0.
  """

  def token(h, inputs):
    u, r, i, first, keep = inputs
    a, inflow = gate(u, r, i, a_param, first)
    h = a * op.kept(keep, h) + inflow
    return h, h

  return op.loop(token, h, (u, r, i, first, keep))
