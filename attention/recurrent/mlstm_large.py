"""mLSTM as in xLSTM 7B: dense queries, keys and values, capped gates, an output gate, and no convolution. State: fixed.

Beck et al. 2025, arXiv:2503.13427. Theirs: C, n, m as here, i~ and f~ -> i and f, o -> gate, d_qk and d_hv -> k and p.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from layers import Dense, HeadNorm
from layers.initializers import constant
from layers.mixer import Mixer, Where
from layers.mlstm_cell import empty, mlstm_cell
from layers.sizes import above_zero, at_least_one, at_least_zero, largest_divisor, scaled
from mistake import Mistake


class State(NamedTuple):
  C: Float[Array, "b h k q"]  # float32; the memory over e^m, and in the last column the normaliser n over e^m
  m: Float[Array, "b h"]  # the logarithm of the largest weight so far


class MLSTMLarge(Mixer):
  """C_t = f_t C_{t-1} + i_t k_t v_t^T,  n_t = f_t n_{t-1} + i_t k_t,  h_t = C_t^T q_t / max(|n_t . q_t|, 1)

  for each head     eqs. (1)-(13), with i = exp(cap(..)), f = sigmoid(cap(..)), cap(x) = c tanh(x / c). q, sqrt(k) k, v
  and all gates are linear in x, and W_out (sigmoid(W_o x) norm(h)) is the result. A model of the paper is
  `pattern=m-` with `gated_mlp` for the "-"; `mlstm` is the layer of the first xLSTM.
  Departs: as in the authors' code, eps e^m is added to the divisor. The norm, RMSNorm or LayerNorm in the paper, is the
  latter, by head, and without bias if none is asked for, as the published weights want.

  Attributes:
    heads: the largest number up to 8 that divides the widths of queries and of values, if not given.
    qk_factor: width of all queries / d, and of all keys.
    soft_cap: c, for both gates of the memory; none if None.
    i_bias: initial bias of i, before the cap; low ones keep early gradients small (sec. 3.2, fig. 11).
    bias: whether q, k, v, W_o, W_out and the norm have biases.
    eps: e^m times it is added to the divisor.
    depth: layers of the model; W_out starts smaller by it.
  """

  width: int
  heads: int | None = None
  qk_factor: float = 0.5
  soft_cap: float | None = 15.0
  i_bias: float = -10.0
  bias: bool = False
  eps: float = 1e-6
  norm_eps: float = 1e-6
  depth: int = 1

  def setup(self):
    d, (heads, keys) = self.width, self._sizes
    # Nguyen & Salazar 2019, arXiv:1910.05895
    small = nn.initializers.normal((2 / (5 * d)) ** 0.5)
    dense = lambda features, axis: Dense(features, use_bias=self.bias, kernel_init=small, axes=("embed", axis))
    self.q_proj, self.k_proj, self.v_proj = dense(keys, "heads"), dense(keys, "kv"), dense(d, "kv")
    zeros = nn.initializers.zeros
    gate = lambda bias: Dense(
      heads, use_bias=True, kernel_init=zeros, bias_init=constant(bias), axes=("embed", "heads")
    )
    self.i_proj, self.f_proj = gate(self.i_bias), gate(np.linspace(3, 6, heads))
    self.gate_proj = Dense(d, use_bias=self.bias, kernel_init=zeros, axes=("embed", "heads"))
    self.norm = HeadNorm(heads, eps=self.norm_eps, axis="heads", use_bias=self.bias)
    out = nn.initializers.normal(2 / self.depth / d**0.5)
    self.out_proj = Dense(d, use_bias=self.bias, kernel_init=out, axes=("heads", "embed"))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    heads, keys = self._sizes
    return State(*empty(batch, heads, keys // heads, self.width // heads))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    by_head = lambda z: z.reshape(*z.shape[:-1], self._sizes[0], -1).astype(dtype)
    q, k, v = (by_head(dense(x)) for dense in (self.q_proj, self.k_proj, self.v_proj))
    i, f = (self._capped(dense(x.astype(dtype))) for dense in (self.i_proj, self.f_proj))
    h, *memory = mlstm_cell(q, k, v, i, jax.nn.log_sigmoid(f), *state, eps=self.eps, **where.masks)
    y = self.norm(h.reshape(x.shape)).astype(x.dtype) * jax.nn.sigmoid(self.gate_proj(x))
    return self.out_proj(y), State(*memory)

  @property
  def _sizes(self) -> tuple[int, int]:
    """Returns the number of heads, and the width of all queries."""
    keys = scaled(self.qk_factor, self.width)
    return self.heads or largest_divisor(math.gcd(self.width, keys), 8), keys

  def _capped(self, z: Float[Array, "b t h"]) -> Float[Array, "b t h"]:
    return z if self.soft_cap is None else self.soft_cap * jnp.tanh(z / self.soft_cap)

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "heads", "depth")
    above_zero(self, "soft_cap")
    at_least_zero(self, "eps")
    heads, keys = self._sizes
    if keys < 1:
      raise Mistake(f"MLSTMLarge: qk_factor={self.qk_factor} of width={self.width} leaves no channel")
    for what, size in (("width", self.width), ("width of the queries", keys)):
      if size % heads:
        raise Mistake(f"MLSTMLarge: heads={heads} does not divide {size}, the {what}")
