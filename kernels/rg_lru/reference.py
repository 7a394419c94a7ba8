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
  reset: Bool[Array, "b t"] | None,
  packed: bool,
) -> tuple[Float[Array, "b t e"], Float[Array, "b e"]]:
  """h_t = a_t * h_{t-1} + inflow_t; where `reset` is True h_{t-1} is 0 and the inflow is whole.

  Args:
    packed: whether documents start after a row's first token; before that, h is 0 already where `reset` is True.
  """
  del packed

  def token(h, inputs):
    u, r, i, reset = inputs
    a, inflow = gate(u, r, i, a_param, reset)
    h = a * op.cleared(reset, h) + inflow
    return h, h

  return op.loop(token, h, (u, r, i, reset))
