"""RG-LRU in the recurrent block of Hawk and Griffin: a real diagonal recurrence with two gates. State: fixed.

De et al. 2024, arXiv:2402.19427. Theirs: D -> d, D_RNN -> e, L -> t, Lambda -> a_param.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels.rg_lru import rg_lru
from kernels.rg_lru.gates import C
from layers import BlockDense, Dense, ShortConv, param
from layers.activations import gelu_tanh
from layers.choices import one_of
from layers.initializers import inverse_softplus, ring
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one, largest_divisor
from mistake import Mistake

# a_t at r_t = 1 is the drawn radius to this power
INITS = {"paper": 1.0, "recurrentgemma": C}


class State(NamedTuple):
  h: Float[Array, "b e"]  # float32
  taps: Float[Array, "b w e"]  # the last inputs of the short convolution
  started: Int[Array, "b"]  # 1 once the document has had a token, else 0


class RGLRU(Mixer):
  """h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t u_t),  a_t = exp(-c r_t softplus(a_param)),  c = 8     eqs. (1)-(4)

  with gates r_t = sigmoid(W_a u_t + b_a), i_t = sigmoid(W_x u_t + b_x) of block-diagonal matrices, u the short
  convolution of W_u x + b_u, and W_out (h_t GELU(W_y x_t + b_y)) + b_out as the result (fig. 2). Departs: at the first
  token of a document, which nothing precedes, the factor of the input is 1, as in the authors' code. Gates are float32.

  Attributes:
    inner: D_RNN; the width if not given.
    heads: blocks of W_a and W_x; the largest divisor of `inner` not above 10, that of the model of 2b, if not given.
    taps: width of the short convolution.
    a_init: a radius is drawn over the area of a ring; a_t at r_t = 1 is this radius ("paper") or its power of c
      ("recurrentgemma": the authors' code, which forgets c times faster).
    r_min, r_max: the ring.
    depth: residual branches of the model; W_out starts with variance 4/depth over its fan-in, but not above 1 over it
      (the authors' code has 2 over the number of its layers, which have two branches each).
  """

  width: int
  inner: int | None = None
  heads: int | None = None
  taps: int = 4
  a_init: str = "paper"
  r_min: float = 0.9
  r_max: float = 0.999
  depth: int = 1

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "inner", "heads", "taps", "depth")
    if self.heads is not None and self._inner % self.heads:
      raise Mistake(f"RGLRU: heads={self.heads} does not divide inner={self._inner}")
    one_of(self, a_init=INITS)
    ring(self.r_min, self.r_max)  # raises

  def setup(self):
    inner = self._inner
    normal = lambda scale: nn.initializers.variance_scaling(scale, "fan_in", "normal")
    into = functools.partial(Dense, inner, use_bias=True, kernel_init=normal(1.0), axes=("embed", "inner"))
    self.x_proj, self.y_proj = into(), into()
    out_init = normal(min(1.0, 4 / self.depth))
    self.out_proj = Dense(self.width, use_bias=True, kernel_init=out_init, axes=("inner", "embed"))
    self.conv = ShortConv(inner, taps=self.taps, kernel_init=normal(0.01), bias_init=nn.initializers.zeros)
    heads = self.heads or largest_divisor(inner, 10)
    self.a_gate, self.input_gate = BlockDense(heads, use_bias=True), BlockDense(heads, use_bias=True)
    decay, power = ring(self.r_min, self.r_max), INITS[self.a_init] / C
    self.a_param = param(
      self, "a_param", lambda *args: inverse_softplus(power * decay(*args)), (inner,), ("inner",), slow=True
    )

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    e = self._inner
    return State(jnp.zeros((batch, e)), jnp.zeros((batch, self.taps - 1, e)), jnp.zeros(batch, jnp.int32))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    u, taps = self.conv(self.x_proj(x), state.taps, **where.masks)
    wide = u.astype(jnp.promote_types(u.dtype, jnp.float32))
    r, i = self.a_gate(wide), self.input_gate(wide)
    h, last = rg_lru(u, r, i, self.a_param, state.h, row_reset=state.started == 0, **where.masks)
    started = jnp.ones_like(state.started)
    if where.lengths is not None:
      started = jnp.where(where.lengths > 0, started, state.started)
    y = self.out_proj(h.astype(x.dtype) * gelu_tanh(self.y_proj(x)))
    return y, State(h=last, taps=taps, started=started)

  @property
  def _inner(self) -> int:
    return self.width if self.inner is None else self.inner
