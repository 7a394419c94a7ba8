"""DeltaNet: linear attention that replaces the value stored under a key instead of adding to it. State: fixed.

Yang et al. 2024, arXiv:2406.06484. Theirs: S -> S^T, d_head -> k and p, beta -> beta.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.delta_rule import delta_rule
from layers import Dense, RMSNorm, torch_dense
from layers.initializers import uniform_fan_in
from layers.mixer import Mixer, Where
from layers.qkv import ConvQKV
from layers.sizes import at_least_one, largest_divisor, scaled
from mistake import Mistake


class State(NamedTuple):
  S: Float[Array, "b h k p"]  # float32
  taps: Float[Array, "b w e"]  # the last inputs of the short convolution


class DeltaNet(Mixer):
  """S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}^T k_t)^T,  y_t = S_t^T q_t / sqrt(k)  for each head     sec. 2.2

  with q, k and v after a short convolution and SiLU, q and k of length 1, beta = sigmoid(W_b x), and W_o norm(y) as the
  result. With negative eigenvalues beta = 2 sigmoid(W_b x), so that a token can flip the sign of the value stored
  under its key (Grazzi et al. 2025, arXiv:2411.12537). Departs: nothing.

  Attributes:
    heads: the largest common divisor of keys and values not above 4, if not given.
    expand_k, expand_v: width of the keys, and of the values, of all heads / d.
    taps: width of the short convolution.
    negative_eigenvalues: whether beta reaches 2.
    depth: layers of the model; W_o starts smaller by its square root.
  """

  width: int
  heads: int | None = None
  expand_k: float = 1.0
  expand_v: float = 1.0
  taps: int = 4
  negative_eigenvalues: bool = False
  norm_eps: float = 1e-5
  depth: int = 1

  def setup(self):
    self.qkv = self._qkv()
    self.b_proj = Dense(self.qkv.heads, kernel_init=uniform_fan_in(), axes=("embed", "heads"))
    self.norm = RMSNorm(eps=self.norm_eps, axis=None)
    self.out_proj = torch_dense(self.width, ("heads", "embed"), gain=self.depth**-0.5)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    qkv = self._qkv(parent=None)
    return State(S=jnp.zeros((batch, qkv.heads, qkv.key_size, qkv.value_size)), taps=qkv.init_taps(batch))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    (q, k, v), taps = self.qkv(x, state.taps, **where.masks)
    beta = jax.nn.sigmoid(self.b_proj(x).astype(k.dtype)) * (2 if self.negative_eigenvalues else 1)
    y, S = delta_rule(q, beta[..., None] * k, v, k, state.S, **where.masks)
    y = self.norm(y).reshape(*x.shape[:-1], -1)
    return self.out_proj(y), State(S, taps)

  @nn.nowrap
  def _qkv(self, **kwargs) -> ConvQKV:
    heads, keys, values = _sizes(self)
    return ConvQKV(heads, heads, keys // heads, values // heads, taps=self.taps, **kwargs)

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "heads", "taps", "depth")
    for field in ("expand_k", "expand_v"):
      if scaled(getattr(self, field), self.width) < 1:
        raise Mistake(f"DeltaNet: {field}={getattr(self, field)} of width={self.width} leaves no channel")
    heads, keys, values = _sizes(self)
    if keys % heads or values % heads:
      raise Mistake(f"DeltaNet: heads={heads} does not divide {keys} keys and {values} values")


def _sizes(module: DeltaNet) -> tuple[int, int, int]:
  """Returns the number of heads, and the widths of all keys and of all values."""
  keys, values = scaled(module.expand_k, module.width), scaled(module.expand_v, module.width)
  return module.heads or largest_divisor(math.gcd(keys, values), 4), keys, values
