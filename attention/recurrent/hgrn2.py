"""HGRN2: gated linear attention whose keys are what its decays leave off, with a lower bound on them. State: fixed.

Qin et al. 2024, arXiv:2404.07904. Theirs: o -> q, f -> a, 1 - f -> k, i -> v, expansion ratio -> head_size.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.gated_linear_attention import gated_linear_attention
from layers import Dense, RMSNorm, param, torch_dense
from layers.initializers import constant, uniform_fan_in
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one, largest_divisor, place_in_depth
from mistake import Mistake

LEAST = 1e-3  # the initial lower bound of a first layer, whose logit must be finite


class State(NamedTuple):
  S: Float[Array, "b h k p"]  # float32


class HGRN2(Mixer):
  """S_t = diag(a_t) S_{t-1} + (1 - a_t) v_t^T,  y_t = S_t^T q_t  for each head     sec. 3

  with a = l + (1 - l) sigmoid(W_f x), q = SiLU(W_q x), v = W_i x and W_o norm(y) as the result. The lower bounds l of
  the decays start at layer / depth in every channel.
  Departs: the bounds of different layers are sigmoids of numbers of their own, not one cumulative softmax over layers,
  and a first layer's, which is 0 there, starts at 1e-3.

  Attributes:
    head_size: rows and columns of S; the largest divisor of the width not above 128, if not given.
    layer, depth: the layer's place in the model, which decides the initial lower bound; W_o starts smaller by the
      square root of depth.
  """

  width: int
  head_size: int | None = None
  norm_eps: float = 1e-5
  layer: int = 0
  depth: int = 1

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "head_size")
    place_in_depth(self)
    if self.width % self._size:
      raise Mistake(f"HGRN2: head_size={self._size} does not divide width={self.width}")

  def setup(self):
    dense = lambda axis: Dense(self.width, kernel_init=uniform_fan_in(), axes=("embed", axis))
    self.q_proj, self.f_proj, self.i_proj = dense("heads"), dense("kv"), dense("kv")
    start = max(LEAST, self.layer / self.depth)
    bound = constant(jnp.log(start) - jnp.log1p(-start))
    self.bound = param(self, "bound", bound, (self.width,), ("kv",), slow=True)
    self.norm = RMSNorm(eps=self.norm_eps, axis="heads")
    self.out_proj = torch_dense(self.width, ("heads", "embed"), gain=self.depth**-0.5)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(S=jnp.zeros((batch, self.width // self._size, self._size, self._size)))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    by_head = lambda z: z.reshape(*z.shape[:-1], -1, self._size)
    f = self.f_proj(x)
    f = f.astype(jnp.promote_types(f.dtype, jnp.float32))
    log_sigmoid = jax.nn.log_sigmoid
    # log(l + (1 - l) sigmoid(f)) and its complement, both to all digits
    log_a = jnp.logaddexp(log_sigmoid(self.bound), log_sigmoid(-self.bound) + log_sigmoid(f))
    k = jnp.exp(log_sigmoid(-self.bound) + log_sigmoid(-f))
    q, k, v, log_a = (by_head(z) for z in (jax.nn.silu(self.q_proj(x)), k, self.i_proj(x), log_a))
    y, S = gated_linear_attention(q, k, v, log_a, state.S, **where.masks)
    return self.out_proj(self.norm(y.reshape(x.shape))), State(S)

  @property
  def _size(self) -> int:
    return self.head_size or largest_divisor(self.width, 128)
