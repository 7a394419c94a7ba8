"""Gated linear attention: a decay for each key channel, computed from each token. State: fixed.

Yang et al. 2024, arXiv:2312.06635. Theirs: d_k, d_v -> keys, values (of all heads), H -> heads, alpha -> a.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.gated_linear_attention import gated_linear_attention
from layers import Dense, GatedRMSNorm, torch_dense
from layers.initializers import uniform_fan_in
from layers.low_rank import LowRank
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one, largest_divisor, scaled
from mistake import Mistake


class State(NamedTuple):
  S: Float[Array, "b h k p"]  # float32


class GLA(Mixer):
  """S_t = diag(a_t) S_{t-1} + k_t v_t^T,  y_t = S_t^T q_t / sqrt(k)  for each head     sec. 4.1, 4.4

  with a = sigmoid(W_2 W_1 x + b)^(1 / tau), q, k and v linear in x, and W_o (norm(y) SiLU(W_g x)) as the result.
  Departs: the norm of a head is an RMS norm with one scale for all heads, as in the authors' code, not a LayerNorm.

  Attributes:
    heads: the largest common divisor of keys and values not above 4, if not given.
    expand_k, expand_v: width of the keys, and of the values, of all heads / d.
    gate_rank: size of W_1 x.
    tau: the larger, the longer the memory.
    depth: layers of the model; W_o starts smaller by its square root.
  """

  width: int
  heads: int | None = None
  expand_k: float = 0.5
  expand_v: float = 1.0
  gate_rank: int = 16
  tau: float = 16.0
  norm_eps: float = 1e-5
  depth: int = 1

  def setup(self):
    _, keys, values = self._sizes
    dense = lambda features, axis: Dense(features, kernel_init=uniform_fan_in(), axes=("embed", axis))
    self.q_proj, self.k_proj = dense(keys, "heads"), dense(keys, "kv")
    self.v_proj, self.g_proj = dense(values, "kv"), dense(values, "heads")
    self.a_proj = LowRank(keys, self.gate_rank, bias_init=nn.initializers.zeros)
    self.gated_norm = GatedRMSNorm("norm_first", eps=self.norm_eps, axis=None)
    self.out_proj = torch_dense(self.width, ("heads", "embed"), gain=self.depth**-0.5)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    heads, keys, values = self._sizes
    return State(S=jnp.zeros((batch, heads, keys // heads, values // heads)))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    q, k, v, g = (self._by_head(z) for z in (self.q_proj(x), self.k_proj(x), self.v_proj(x), self.g_proj(x)))
    gate = self.a_proj(x)
    # the last digits of a decide how long the state remembers
    log_a = jax.nn.log_sigmoid(gate.astype(jnp.promote_types(gate.dtype, jnp.float32))) / self.tau
    q = q * q.shape[-1] ** -0.5
    y, S = gated_linear_attention(q, k, v, self._by_head(log_a), state.S, **where.masks)
    y = self.gated_norm(y, g)
    return self.out_proj(y.reshape(*x.shape[:-1], -1)), State(S)

  @property
  def _sizes(self) -> tuple[int, int, int]:
    """Returns the number of heads, and the widths of all keys and of all values."""
    keys, values = scaled(self.expand_k, self.width), scaled(self.expand_v, self.width)
    return self.heads or largest_divisor(math.gcd(keys, values), 4), keys, values

  def _by_head(self, z: Float[Array, "*b e"]) -> Float[Array, "*b h k"]:
    return z.reshape(*z.shape[:-1], self._sizes[0], -1)

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "heads", "gate_rank", "depth")
    for field in ("expand_k", "expand_v"):
      if scaled(getattr(self, field), self.width) < 1:
        raise Mistake(f"GLA: {field}={getattr(self, field)} of width={self.width} leaves no channel")
    heads, keys, values = self._sizes
    if keys % heads or values % heads:
      raise Mistake(f"GLA: heads={heads} does not divide {keys} keys and {values} values")
    if not self.tau > 0:
      raise Mistake(f"GLA: tau={self.tau}; it must be above 0")
