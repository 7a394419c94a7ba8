"""Lightning attention (MiniMax): linear attention with decays by head and layer that no token chooses. State: fixed.

MiniMax 2025, arXiv:2501.08313; Qin et al. 2024, arXiv:2401.04658. Theirs: lambda -> a, d -> head_size, KV -> S.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kernels.ssd import ssd
from layers import Dense, RMSNorm, buffer, torch_dense
from layers.initializers import constant, uniform_fan_in
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one, largest_divisor, place_in_depth
from mistake import Mistake

LEFT = 1e-5  # how fast the last layer forgets, over how fast the first one does


class State(NamedTuple):
  S: Float[Array, "b h k p"]  # float32


class Lightning(Mixer):
  """S_t = a S_{t-1} + k_t v_t^T,  y_t = S_t^T q_t  for each head, a = exp(-2^(-8 i / h) (1 - layer / (depth - 1)))

  for the heads i = 1 .. h     2501.08313, sec. 2.2.1. q, k and v are SiLU of linear maps of x, and
  W_o (sigmoid(W_g x) norm(y)) is the result, with one norm for all heads. The rates -log a are kept in the collection
  "buffers".
  Departs: nothing of MiniMax's code. (TransNormerLLM, 2307.14995, has rates 8 i / h (1 - layer / depth), rotary
  positions in its first layer, and neither SiLU on v nor a sigmoid on the gate.)

  Attributes:
    heads: width / head_size, if not given.
    head_size: width / heads, or the largest divisor of the width not above 128, if not given.
    layer, depth: the layer's place in the model: the last forgets next to nothing. W_o starts smaller by the square
      root of depth.
  """

  width: int
  heads: int | None = None
  head_size: int | None = None
  norm_eps: float = 1e-6
  layer: int = 0
  depth: int = 1

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "heads", "head_size")
    place_in_depth(self)
    heads, size = self._sizes
    if (self.heads is None or self.head_size is None) and heads * size != self.width:
      field = f"head_size={size}" if self.heads is None else f"heads={heads}"
      raise Mistake(f"Lightning: {field} does not divide width={self.width}")

  def setup(self):
    heads, size = self._sizes
    dense = lambda axis: Dense(heads * size, kernel_init=uniform_fan_in(), axes=("embed", axis))
    self.q_proj, self.k_proj, self.v_proj, self.g_proj = dense("heads"), dense("kv"), dense("kv"), dense("heads")
    self.rate = buffer(self, "rate", constant(_rates(heads, self.layer, self.depth)), (heads,), ("heads",))
    self.norm = RMSNorm(eps=self.norm_eps, axis="heads")
    self.out_proj = torch_dense(self.width, ("heads", "embed"), gain=self.depth**-0.5)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    heads, size = self._sizes
    return State(S=jnp.zeros((batch, heads, size, size)))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    heads, size = self._sizes
    by_head = lambda dense: jax.nn.silu(dense(x)).reshape(*x.shape[:-1], heads, size)
    q, k, v = by_head(self.q_proj), by_head(self.k_proj), by_head(self.v_proj)
    log_a = jnp.broadcast_to(-self.rate, q.shape[:-1])
    y, S = ssd(q, k, v, log_a, state.S, **where.masks)
    y = self.norm(y.reshape(*x.shape[:-1], -1)) * jax.nn.sigmoid(self.g_proj(x))
    return self.out_proj(y), State(S)

  @property
  def _sizes(self) -> tuple[int, int]:
    """Returns the number of heads, and the size of one."""
    if self.heads is None:
      size = self.head_size or largest_divisor(self.width, 128)
      return self.width // size, size
    return self.heads, self.head_size or self.width // self.heads


def _rates(heads: int, layer: int, depth: int) -> np.ndarray:
  """-log a of each head."""
  later = 1 - layer / (depth - 1 + LEFT) + LEFT
  return later * 2.0 ** (-8 * np.arange(1, heads + 1) / heads)
