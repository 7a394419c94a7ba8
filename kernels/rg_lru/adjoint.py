"""Makes a differentiable `rg_lru` of a kernel for the forward pass and one for the backward pass.

Only inputs and outputs are kept for the gradient: the gates are computed again, and the states are the outputs, in
their dtype. Of bfloat16 the gradient of a decay therefore sees states of 8 bits, as it sees gates and inputs of 8 bits.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels import dispatch
from kernels.kept_states import named
from kernels.rg_lru.gates import C

READ = (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16))  # as they lie in memory


def others(u, r, i, a_param, h, reset, packed) -> list[Float[Array, "..."]]:
  """Arguments whose dtype a kernel must know as the one it computes in."""
  return [a_param, h, *(z for z in (u, r, i) if z.dtype not in READ)]


def differentiable(forward: Callable, backward: Callable) -> Callable:
  """Makes `rg_lru` of two kernels.

  `forward(u, r, i, rate, h, reset)` returns all y, in the dtype of u, and the last state, and
  `backward(u, r, i, rate, h, y, reset, y_bar, last_bar)` returns the cotangents of the first five, in their dtypes. The
  rate is C softplus(a_param).
  """

  @jax.custom_vjp
  def scan(u, r, i, rate, h, reset):
    return forward(u, r, i, rate, h, reset)

  def save(u, r, i, rate, h, reset):
    y, last = named(forward(u, r, i, rate, h, reset))
    return (y, last), (u, r, i, rate, h, y, reset)

  scan.defvjp(save, lambda saved, cotangents: (*backward(*saved, *cotangents), None))

  def rg_lru(u, r, i, a_param, h, reset, packed):
    """Computes `reference.rg_lru`."""
    axes = ("b t e", "b t e", "b t e", "e", "b e", "b t")
    run = dispatch.shard(scan, axes, ("b t e", "b e"))
    return run(u, r, i, C * jax.nn.softplus(a_param), h, reset)

  return rg_lru
