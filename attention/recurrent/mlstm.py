"""mLSTM: linear attention with exponential gates and a normaliser, between a convolution and a gate. State: fixed.

Beck et al. 2024, arXiv:2405.04517. Theirs: C, n, m as here, i~ and f~ -> i and f, d_h -> k.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from layers import BlockDense, Dense, HeadNorm, ShortConv, param
from layers.initializers import constant
from layers.mixer import Mixer, Where
from layers.mlstm_cell import empty, mlstm_cell
from layers.sizes import at_least_one, at_least_zero, largest_divisor, scaled
from mistake import Mistake


class State(NamedTuple):
  C: Float[Array, "b h k q"]  # float32; the memory over e^m, and in the last column the normaliser n over e^m
  m: Float[Array, "b h"]  # the logarithm of the largest weight so far
  taps: Float[Array, "b w e"]  # the last inputs of the short convolution


class MLSTM(Mixer):
  """C_t = f_t C_{t-1} + i_t k_t v_t^T,  n_t = f_t n_{t-1} + i_t k_t,  h_t = C_t^T q_t / max(|n_t . q_t|, 1)

  for each head     eqs. (19)-(27), with i = exp(..) and f = sigmoid(..). As in the paper's block, [u, z] = W_in x, q
  and sqrt(size) k are block-diagonal maps of c = SiLU of a short convolution of u, v one of u, the gates linear in all
  three, and W_out ((norm(h) + skip c) SiLU(z)) is the result. C and n are kept over e^m with m the logarithm of the
  largest weight so far, so no exponential overflows.
  Departs: as in the authors' code, eps e^m is added to the divisor. The inner width is not rounded to a multiple of 64.

  Attributes:
    expand: inner width / d.
    heads: the largest divisor of the inner width not above 4, if not given.
    block_size: block size of the maps of q, k and v; the largest divisor of the inner width not above 4, if not given.
    taps: width of the short convolution.
    eps: e^m times it is added to the divisor.
    depth: layers of the model; W_out starts smaller by it.
  """

  width: int
  expand: float = 2.0
  heads: int | None = None
  block_size: int | None = None
  taps: int = 4
  eps: float = 1e-6
  norm_eps: float = 1e-5
  depth: int = 1

  def setup(self):
    d, (inner, heads, block) = self.width, self._sizes
    # Nguyen & Salazar 2019, arXiv:1910.05895
    small = nn.initializers.normal((2 / (5 * d)) ** 0.5)
    self.in_proj = Dense(2 * inner, kernel_init=small, axes=("embed", "inner"))
    self.conv = ShortConv(inner, taps=self.taps)
    self.q_proj, self.k_proj, self.v_proj = (BlockDense(inner // block, kernel_init=small) for _ in range(3))
    gate = lambda init: Dense(
      heads, use_bias=True, kernel_init=nn.initializers.zeros, bias_init=init, axes=("inner", "heads")
    )
    self.i_proj, self.f_proj = gate(nn.initializers.normal(0.1)), gate(constant(np.linspace(3, 6, heads)))
    self.norm = HeadNorm(heads, eps=self.norm_eps)
    self.skip = param(self, "skip", nn.initializers.ones, (inner,), ("inner",))
    out = nn.initializers.normal(2 / self.depth / d**0.5)
    self.out_proj = Dense(d, kernel_init=out, axes=("inner", "embed"))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    inner, heads, _ = self._sizes
    C, m = empty(batch, heads, inner // heads, inner // heads)
    return State(C=C, m=m, taps=jnp.zeros((batch, self.taps - 1, inner)))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    u, z = jnp.split(self.in_proj(x), 2, axis=-1)
    c, taps = self.conv(u, state.taps, **where.masks)
    c = jax.nn.silu(c)
    qkv = (self.q_proj(c), self.k_proj(c), self.v_proj(u))
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    gates = jnp.concatenate(qkv, axis=-1).astype(dtype)
    i, log_f = self.i_proj(gates), jax.nn.log_sigmoid(self.f_proj(gates))
    q, k, v = (z.reshape(*z.shape[:-1], i.shape[-1], -1).astype(dtype) for z in qkv)
    h, C, m = mlstm_cell(q, k, v, i, log_f, state.C, state.m, eps=self.eps, **where.masks)
    y = (self.norm(h.reshape(u.shape)).astype(x.dtype) + self.skip.astype(x.dtype) * c) * jax.nn.silu(z)
    return self.out_proj(y), State(C, m, taps)

  @property
  def _sizes(self) -> tuple[int, int, int]:
    """Returns the inner width, the number of heads, and the size of a block."""
    inner = scaled(self.expand, self.width)
    return inner, self.heads or largest_divisor(inner, 4), self.block_size or largest_divisor(inner, 4)

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "heads", "block_size", "taps", "depth")
    at_least_zero(self, "eps")
    inner, heads, block = self._sizes
    if inner < 1:
      raise Mistake(f"MLSTM: expand={self.expand} of width={self.width} leaves no channel")
    for field, value in (("heads", heads), ("block_size", block)):
      if inner % value:
        raise Mistake(f"MLSTM: {field}={value} does not divide the inner width {inner}")
