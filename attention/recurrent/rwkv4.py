"""RWKV-4, time mixing: a mean of values with exponential weights, decays and a bonus by channel. State: fixed.

Peng et al. 2023, arXiv:2305.13048. Theirs: C or D -> d, a and b -> A and B, p -> m, mu -> 1 - mu, as in RWKV-6.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kernels.linear_scan import linear_scan
from kernels.max_scan import EMPTY
from layers import Dense, param
from layers.initializers import constant
from layers.lengths import blank_past
from layers.log_weights import scaled
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one, place_in_depth
from layers.token_shift import token_shift


class State(NamedTuple):
  A: Float[Array, "b e"]  # float32, as all: the sum of weighted values over e^m
  B: Float[Array, "b e"]  # that of the weights
  m: Float[Array, "b e"]  # the logarithm of the largest weight
  last: Float[Array, "b d"]  # the last token's input


class RWKV4(Mixer):
  """y_t = (A_{t-1} + e^(u + k_t) v_t) / (B_{t-1} + e^(u + k_t)),  A_t = e^-w A_{t-1} + e^(k_t) v_t     sec. 3

  in each channel, B being A with all v = 1, and w = exp(log_w). Mixtures x + mu_i (x_before - x) give k, v and r
  linearly, and W_o (sigmoid(r) y) is the result. A and B are kept over e^m with m the logarithm of the largest weight
  so far, so no exponential overflows.
  Departs: nothing.

  Attributes:
    inner: the number of those channels; the width if not given.
    layer, depth: the layer's place in the model, which shapes the initial mixtures and decays; keys, receptance and
      output start at 0.
  """

  width: int
  inner: int | None = None
  layer: int = 0
  depth: int = 1

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "inner")
    place_in_depth(self)

  def setup(self):
    d, inner = self.width, self._inner
    mu = _mixtures(d, self.layer, self.depth)
    log_w, u = _decays(inner, self.layer, self.depth)
    self.mu = param(self, "mu", constant(mu), (3, d), (None, "embed"), decay=False)
    self.log_w = param(self, "log_w", constant(log_w), (inner,), ("heads",))
    self.u = param(self, "u", constant(u), (inner,), ("heads",))
    zeros = nn.initializers.zeros
    dense = lambda init: Dense(inner, kernel_init=init, axes=("embed", "heads"))
    self.k_proj, self.v_proj, self.r_proj = dense(zeros), dense(nn.initializers.orthogonal()), dense(zeros)
    self.out_proj = Dense(d, kernel_init=zeros, axes=("heads", "embed"))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    zero = jnp.zeros((batch, self._inner))
    return State(A=zero, B=zero, m=jnp.full_like(zero, EMPTY), last=jnp.zeros((batch, self.width)))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    before, last = token_shift(x, state.last, **where.masks)
    xk, xv, xr = (x + (before - x) * mu for mu in self.mu.astype(x.dtype))
    wide = lambda z: z.astype(jnp.promote_types(z.dtype, jnp.float32))
    k, v = wide(self.k_proj(xk)), wide(self.v_proj(xv))
    y, A, B, m = self._mean(k, v, state, where)
    y = jax.nn.sigmoid(self.r_proj(xr)) * y.astype(x.dtype)
    return self.out_proj(y), State(A, B, m, last)

  @property
  def _inner(self) -> int:
    return self.inner or self.width

  def _mean(
    self, k: Float[Array, "b t e"], v: Float[Array, "b t e"], state: State, where: Where
  ) -> tuple[Float[Array, "b t e"], Float[Array, "b e"], Float[Array, "b e"], Float[Array, "b e"]]:
    """y of all tokens, and the last A, B and m."""
    log_a = jnp.broadcast_to(-jnp.exp(self.log_w), k.shape)
    weights, m = scaled(log_a, k, state.m, **where.masks)
    decay = blank_past(jnp.exp(weights.log_keep), where.lengths)

    def sums(new, start):
      rows, last = linear_scan(decay, new, start, **where.masks)
      before = jnp.concatenate([start[:, None].astype(rows.dtype), rows[:, :-1]], axis=1)
      return before if where.reset is None else jnp.where(where.reset[..., None], 0, before), last

    (A, A_last), (B, B_last) = sums(weights.new * v, state.A), sums(weights.new, state.B)
    bonus = self.u + k
    # the larger one of the weights before and of this token's
    top = jax.lax.stop_gradient(jnp.maximum(weights.before, bonus))
    old, new = jnp.exp(weights.before - top), jnp.exp(bonus - top)
    return (old * A + new * v) / (old * B + new), A_last, B_last, m


def _mixtures(width: int, layer: int, depth: int) -> np.ndarray:
  """Returns the initial mixtures of k, v and r."""
  channel, up, down = np.arange(width) / width, layer / max(1, depth - 1), 1 - layer / depth
  return 1 - np.stack([channel**down, channel**down + 0.3 * up, channel ** (0.5 * down)])


def _decays(inner: int, layer: int, depth: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the initial logarithms of w, and bonuses."""
  n, up = np.arange(inner), layer / max(1, depth - 1)
  return -5 + 8 * (n / max(1, inner - 1)) ** (0.7 + 1.3 * up), np.log(0.3) + 0.5 * ((n + 1) % 3 - 1)
