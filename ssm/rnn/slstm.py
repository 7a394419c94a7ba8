"""sLSTM: an LSTM with exponential gates, a normaliser, and memory mixing within heads. State: fixed.

Beck et al. 2024, arXiv:2405.04517. Theirs: N_h -> heads, W and R by gate -> i_proj ... o_proj and R.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from layers import BlockDense, HeadNorm, ShortConv, param
from layers.choices import one_of
from layers.initializers import constant
from layers.mixer import Mixer, Where
from layers.sizes import largest_divisor
from mistake import Mistake
from ssm.rnn.loop import loop

FORGET = {"sigmoid": jax.nn.log_sigmoid, "exp": lambda f: f}


class State(NamedTuple):
  """The state of one layer; n is 0 before the first token, and at least 1 after it."""

  h: Float[Array, "b d"]  # float32, as all fields; the last output before the norm
  c: Float[Array, "b d"]  # the memory over e^m
  n: Float[Array, "b d"]  # the normaliser over e^m
  m: Float[Array, "b d"]  # the logarithm of the largest weight so far
  taps: Float[Array, "b w d"]  # the last inputs of the short convolution


class SLSTM(Mixer):
  """c_t = f_t c_{t-1} + i_t tanh(z_t),  n_t = f_t n_{t-1} + i_t,  h_t = sigmoid(o_t) c_t / n_t     eqs. (8)-(17)

  with i = exp(...), f = sigmoid(...) or exp(...), every gate being W u_t + R h_{t-1} + bias with block-diagonal W and
  R. As in the paper's block, i and f read SiLU of a short convolution of x, z and o read x, and h is
  normalised within each head. c and n are kept over e^m with m the running maximum, so no exponential overflows.
  Departs: nothing. (In the authors' code the names of the maps of i and f are swapped.)

  Attributes:
    heads: blocks of W and R; the largest divisor of the width not above 4 if not given.
    taps: width of the short convolution.
    forget: "sigmoid" or "exp"     eq. (13)
    layer, depth: the layer's place in the model, which shapes the initial bias of f: from 5 to -7 within a head, along
      a power law that is steeper in earlier layers, as in the authors' code.
  """

  width: int
  heads: int | None = None
  taps: int = 4
  forget: str = "sigmoid"
  norm_eps: float = 1e-5
  layer: int = 0
  depth: int = 1

  @nn.nowrap
  def check(self) -> None:
    if self.heads is not None and (self.heads < 1 or self.width % self.heads):
      raise Mistake(f"SLSTM: heads={self.heads} does not divide width={self.width}")
    if self.taps < 1:
      raise Mistake(f"SLSTM: taps={self.taps}; it must be at least 1")
    one_of(self, forget=FORGET)

  def setup(self):
    d, heads = self.width, self.heads or largest_divisor(self.width, 4)
    size = d // heads
    self.conv = ShortConv(d, taps=self.taps)
    # Nguyen & Salazar 2019, arXiv:1910.05895
    small = nn.initializers.normal((2 / (5 * d)) ** 0.5)
    self.i_proj, self.f_proj, self.z_proj, self.o_proj = (BlockDense(heads, kernel_init=small) for _ in range(4))
    self.R = param(self, "R", nn.initializers.zeros, (heads, size, 4, size), ("heads", None, None, None))
    bias = jnp.zeros((4, heads, size)).at[1].set(self._initial_forget(size)).reshape(4, d)
    self.bias = param(self, "bias", constant(bias), (4, d), (None, "inner"), decay=False)
    self.norm = HeadNorm(heads, eps=self.norm_eps)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    zero = jnp.zeros((batch, self.width))
    return State(h=zero, c=zero, n=zero, m=zero, taps=jnp.zeros((batch, self.taps - 1, self.width)))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    u, taps = self.conv(x, state.taps, **where.masks)
    y, (h, c, n, m) = loop(self._cell, state[:4], self._gates(x, u), self.R, **where.masks)
    return self.norm(y).astype(x.dtype), State(h, c, n, m, taps)

  def _gates(self, x: Float[Array, "*b d"], u: Float[Array, "*b d"]) -> Float[Array, "*b 4 d"]:
    """Returns the gates without R h, in at least float32: i and f from u, the convolution's output, z and o from x."""
    u = jax.nn.silu(u)
    gates = (self.i_proj(u), self.f_proj(u), self.z_proj(x), self.o_proj(x))
    return jnp.stack(gates, axis=-2).astype(jnp.promote_types(x.dtype, jnp.float32)) + self.bias

  def _cell(
    self, state: tuple[Float[Array, "b d"], ...], entered: Float[Array, "b 4 d"], R: Float[Array, "h k 4 k"]
  ) -> tuple[tuple[Float[Array, "b d"], ...], Float[Array, "b d"]]:
    """Returns the next state (h, c, n, m) and the output of one token."""
    h, c, n, m = state
    mixed = jnp.einsum("bhk,hkgp->bghp", h.reshape(len(h), *R.shape[:2]), R)
    i, f, z, o = jnp.moveaxis(entered + mixed.reshape(entered.shape), -2, 0)
    empty = n == 0
    log_f = FORGET[self.forget](f) + m
    m = jnp.where(empty, i, jnp.maximum(i, log_f))
    # the m of an empty state is no bound on log_f - m, so its factor is set to 1: c and n are 0
    forget, new = jnp.exp(jnp.where(empty, 0.0, log_f - m)), jnp.exp(i - m)
    c, n = forget * c + new * jnp.tanh(z), forget * n + new
    h = jax.nn.sigmoid(o) * c / n
    return (h, c, n, m), h

  @nn.nowrap
  def _initial_forget(self, size: int) -> Float[Array, "k"]:
    depth_share = self.layer / max(1, self.depth - 1)
    return 5 - 12 * (jnp.arange(size) / max(1, size - 1)) ** (0.3 + 1.3 * depth_share)
