"""Based: linear attention whose weights are the second-order Taylor polynomial of softmax's. State: fixed.

Arora et al. 2024, arXiv:2402.18668. Theirs: phi as here, d' -> key_size, N -> t.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kernels.ssd import ssd
from layers import Dense, heads, torch_dense
from layers.initializers import uniform_fan_in
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one
from layers.sums import beside_one

LEAST = 0.5  # the smallest value of 1 + s + s^2 / 2, at s = -1


class State(NamedTuple):
  S: Float[Array, "b h f q"]  # float32; sums of phi(k) v^T, and of phi(k) in the last column


class Based(Mixer):
  """y_t = sum_{s<=t} w_ts v_s / sum_{s<=t} w_ts  for each head, w_ts = phi(q_t) . phi(k_s)     sec. 4.1

  with w_ts = 1 + z + z^2 / 2 for z = q_t . k_s / sqrt(key_size); q, k and v are linear in x, and W_o y is the result.
  A model of the paper alternates it, for distant tokens, with layers of `softmax` attention in a window of 64 tokens.
  Departs: x_i x_j and x_j x_i are one feature of phi, with sqrt(2) times the weight: 153 in place of 273 for 16 keys.
  Nothing is added to the divisor: it is at least 1/2.

  Attributes:
    heads: the largest divisor of the width not above 16, if not given.
    key_size: size of a query or key of one head.
    depth: layers of the model; W_o starts smaller by its square root.
  """

  width: int
  heads: int | None = None
  key_size: int = 16
  depth: int = 1

  @nn.nowrap
  def check(self) -> None:
    heads.count(self, 16)
    at_least_one(self, "key_size", "depth")

  def setup(self):
    dense = lambda features, axis: Dense(features, kernel_init=uniform_fan_in(), axes=("embed", axis))
    keys = self._heads * self.key_size
    self.q_proj, self.k_proj, self.v_proj = dense(keys, "heads"), dense(keys, "kv"), dense(self.width, "kv")
    self.out_proj = torch_dense(self.width, ("heads", "embed"), gain=self.depth**-0.5)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    features = math.comb(self.key_size + 2, 2)  # monomials of degree 2 at most
    return State(S=jnp.zeros((batch, self._heads, features, self.width // self._heads + 1)))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    wide = lambda z: z.reshape(*x.shape[:-1], self._heads, -1).astype(jnp.promote_types(x.dtype, jnp.float32))
    q, k, v = (wide(dense(x)) for dense in (self.q_proj, self.k_proj, self.v_proj))
    v = beside_one(v)
    sums, S = ssd(taylor(q), taylor(k), v, jnp.zeros(v.shape[:3], v.dtype), state.S, **where.masks)
    # in the padding the sums are 0
    y = sums[..., :-1] / jnp.maximum(sums[..., -1:], LEAST)
    return self.out_proj(y.reshape(x.shape).astype(x.dtype)), State(S)

  @property
  def _heads(self) -> int:
    return heads.count(self, 16)


def taylor(x: Float[Array, "*b k"]) -> Float[Array, "*b f"]:
  """phi(x), with phi(q) . phi(k) = 1 + z + z^2 / 2 for z = q . k / sqrt(k): monomials of degree 0, 1 and 2."""
  x = x * x.shape[-1] ** -0.25
  row, column = np.triu_indices(x.shape[-1])
  squares = x[..., row] * x[..., column] * np.where(row == column, 0.5**0.5, 1).astype(x.dtype)
  return jnp.concatenate([jnp.ones_like(x[..., :1]), x, squares], axis=-1)
