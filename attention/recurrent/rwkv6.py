"""RWKV-6 (Finch), time mixing: decays by channel, and mixtures with the token before, from each token. State: fixed.

Peng et al. 2024, arXiv:2404.05892. Theirs: C or D -> d, w -> a, S as here, wkv -> y.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kernels.gated_linear_attention import gated_linear_attention
from layers import Dense, HeadNorm, param
from layers.initializers import constant
from layers.low_rank import LowRank
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one, largest_divisor, place_in_depth
from layers.token_shift import token_shift
from mistake import Mistake

STREAMS = 5  # w, k, v, r and g


class State(NamedTuple):
  S: Float[Array, "b h k p"]  # float32
  last: Float[Array, "b d"]  # the last token's input


class RWKV6(Mixer):
  """S_t = diag(a_t) S_{t-1} + k_t v_t^T,  y_t = (S_{t-1} + diag(u) k_t v_t^T)^T r_t  for each head     sec. 4

  Five mixtures x + (mu_i + tanh((x + mu d) A_i) B_i) d with d = x_before - x give r, k, v and g linearly, and
  a = exp(-exp(w_0 + tanh(x W_1) W_2)); W_o (norm(y) SiLU(g)) is the result. u is the bonus of the current token.
  Departs: nothing.

  Attributes:
    head_size: the largest divisor of the width not above 64, if not given.
    mix_rank, decay_rank: ranks of the maps A_i B_i and W_1 W_2.
    layer, depth: the layer's place in the model, which shapes most initial values; the output starts at 0.
  """

  width: int
  head_size: int | None = None
  mix_rank: int = 32
  decay_rank: int = 64
  norm_eps: float = 64e-5
  layer: int = 0
  depth: int = 1

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "head_size", "mix_rank", "decay_rank")
    place_in_depth(self)
    if self.width % self._size:
      raise Mistake(f"RWKV6: head_size={self._size} does not divide width={self.width}")

  def setup(self):
    d, size = self.width, self._size
    mu, decay, bonus = _shapes(d, self.layer, self.depth)
    self.mu = param(self, "mu", constant(mu), (1 + STREAMS, d), (None, "embed"), decay=False)
    small, zeros, orthogonal = _uniform(0.01), nn.initializers.zeros, nn.initializers.orthogonal
    self.mix_down = Dense(STREAMS * self.mix_rank, kernel_init=zeros, axes=("embed", None))
    self.mix_up = param(self, "mix_up", small, (STREAMS, self.mix_rank, d), (None, None, "embed"))
    self.w_lora = LowRank(d, self.decay_rank, "tanh", zeros, small, constant(decay))
    self.u = param(self, "u", constant(bonus.reshape(-1, size)), (d // size, size), ("heads", None), decay=False)
    dense = lambda init, axes=("embed", "heads"): Dense(d, kernel_init=init, axes=axes)
    self.r_proj, self.k_proj, self.v_proj = dense(orthogonal()), dense(orthogonal(0.1)), dense(orthogonal())
    self.g_proj = dense(orthogonal(0.1))
    scale = constant(((1 + self.layer) / self.depth) ** 0.7)
    self.norm = HeadNorm(d // size, eps=self.norm_eps, use_bias=True, scale_init=scale, axis="heads")
    self.out_proj = dense(zeros, ("heads", "embed"))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    size = self._size
    return State(S=jnp.zeros((batch, self.width // size, size, size)), last=jnp.zeros((batch, self.width)))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    before, last = token_shift(x, state.last, **where.masks)
    xw, xk, xv, xr, xg = self._mixtures(x, before - x)
    w = self.w_lora(xw)
    log_a = -jnp.exp(w.astype(jnp.promote_types(w.dtype, jnp.float32)))
    r, k, v, log_a = (
      z.reshape(*z.shape[:-1], -1, self._size) for z in (self.r_proj(xr), self.k_proj(xk), self.v_proj(xv), log_a)
    )
    y, S = gated_linear_attention(r, k, v, log_a, state.S, self.u, **where.masks)
    y = self.norm(y.reshape(x.shape)) * jax.nn.silu(self.g_proj(xg))
    return self.out_proj(y), State(S, last)

  @property
  def _size(self) -> int:
    return self.head_size or largest_divisor(self.width, 64)

  def _mixtures(self, x: Float[Array, "b t d"], change: Float[Array, "b t d"]) -> list[Float[Array, "b t d"]]:
    """Returns the mixtures for w, k, v, r and g."""
    first, *mu = self.mu.astype(x.dtype)
    low = jnp.tanh(self.mix_down(x + change * first))
    low = low.reshape(*x.shape[:-1], STREAMS, self.mix_rank)
    more = jnp.einsum("btir,ird->btid", low, self.mix_up.astype(x.dtype))
    return [x + change * (mu[i] + more[..., i, :]) for i in range(STREAMS)]


def _uniform(most: float):
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -most, most)


def _shapes(width: int, layer: int, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns initial mixtures (the first, then those of w, k, v, r and g), logarithms of decays, and bonuses."""
  channel, line, n = np.arange(width) / width, np.arange(width) / max(1, width - 1), np.arange(width)
  up, down = layer / max(1, depth - 1), 1 - layer / depth
  powers = (1, 1, 1, 1, 0.5, 0.5)
  mu = np.stack([1 - channel ** (power * down) for power in powers])
  mu[3] -= 0.3 * up
  return mu, -6 + 5 * line ** (0.7 + 1.3 * up), up * (1 - line) + 0.1 * ((n + 1) % 3 - 1)
