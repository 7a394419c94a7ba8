"""The definition of `rg_lru`: one token after the other."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

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
  first = jnp.zeros(u.shape[:2], bool) if first is None else first
  keep = jnp.ones(u.shape[:2], bool) if keep is None else keep

  def step(h, inputs):
    u, r, i, first, keep = inputs
    a, inflow = gate(u, r, i, a_param, first)
    h = a * jnp.where(keep[:, None], h, 0) + inflow
    return h, h

  h, y = jax.lax.scan(step, h, tuple(z.swapaxes(0, 1) for z in (u, r, i, first, keep)))
  return y.swapaxes(0, 1), h
