"""RWKV-7 (Goose), time mixing: decays by channel, and a delta rule that erases a key's old value. State: fixed.

Peng et al. 2025, arXiv:2503.14456. Theirs: C or D -> d, w -> a, a -> rate, S -> S^T, kappa -> kappa.
"""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kernels.delta_rule import delta_rule
from kernels.inputs import Lengths, Reset
from layers import Dense, HeadNorm, param
from layers.initializers import Initializer, constant
from layers.lengths import blank_past
from layers.low_rank import LowRank
from layers.mixer import Mixer, Where
from layers.qkv import unit
from layers.sizes import at_least_one, largest_divisor, place_in_depth
from layers.token_shift import token_shift
from mistake import Mistake

# For r, w, k, v, a and g: the larger, the more of the token before is mixed into later channels at first.
POWERS = (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)
# Ranks of the maps for w, a, v and g, if not given, over sqrt(d); they are rounded to multiples of 32.
RANKS = {"w": 2.5, "a": 2.5, "v": 1.7, "g": 5.0}


class State(NamedTuple):
  S: Float[Array, "b h k p"]  # float32
  last: Float[Array, "b d"]  # the last token's input


class RWKV7(Mixer):
  """S_t = diag(a_t) S_{t-1} - (rate_t kappa_t) (S_{t-1}^T kappa_t)^T + k_t v_t^T,  y_t = S_t^T r_t  for each head

  sec. 4.1. Six mixtures x + mu (x_before - x) give r and kappa = unit(k_k W_k x), k = W_k x (1 + (rate - 1) k_a),
  rate = sigmoid(a_0 + A x), a = exp(-sigmoid(w_0 + W x) / sqrt(e)), v = W_v x, and g = G x, where A, W and G are of low
  rank, W and G with a nonlinearity. W_o ((norm(y) + (r . (r_k k)) v) g) is the result. After the first layer v is mixed
  with that layer's by sigmoid(v_0 + V x); the stack passes them as side["v_first"]; without them v stays.
  Departs: nothing; every layer has the parameters for this mixture, also the first, which does not use them.

  Attributes:
    head_size: the largest divisor of the width not above 64, if not given.
    w_rank, a_rank, v_rank, g_rank: ranks of the four maps; 2.5, 2.5, 1.7 and 5 sqrt(d) in steps of 32, if not given.
    layer, depth: the layer's place in the model, which shapes most initial values; the output starts at 0.
  """

  width: int
  head_size: int | None = None
  w_rank: int | None = None
  a_rank: int | None = None
  v_rank: int | None = None
  g_rank: int | None = None
  norm_eps: float = 64e-5
  layer: int = 0
  depth: int = 1

  SIDE = ("v_first",)

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "head_size", *(f"{name}_rank" for name in RANKS))
    place_in_depth(self)
    if self.width % self._size:
      raise Mistake(f"RWKV7: head_size={self._size} does not divide width={self.width}")

  def setup(self):
    d, channels = self.width, lambda name, values: param(self, name, constant(values), (self.width,), ("heads",))
    line, zigzag, decay = _shapes(d, self._size, self.layer / max(1, self.depth - 1))
    channel = np.arange(d) / d
    self.mu = param(
      self,
      "mu",
      constant(np.stack([1 - channel ** (power * (1 - self.layer / self.depth)) for power in POWERS])),
      (len(POWERS), d),
      (None, "embed"),
      decay=False,
    )
    orthogonal = nn.initializers.orthogonal
    dense = lambda init, axes=("embed", "heads"): Dense(d, kernel_init=init, axes=axes)
    self.r_proj, self.k_proj, self.v_proj = dense(orthogonal()), dense(orthogonal(0.1)), dense(orthogonal())
    self.w_lora = self._lora("w", "tanh", constant(decay + 0.5 + 2.5 * zigzag))
    self.a_lora = self._lora("a", "none", constant(-0.19 + 0.3 * zigzag + 0.4 * line))
    self.v_lora = self._lora("v", "none", constant(0.73 - 0.4 * line))
    self.g_lora = self._lora("g", "sigmoid", None)
    self.k_k, self.k_a = channels("k_k", 0.71 - 0.1 * line), channels("k_a", 1.02)
    self.r_k = channels("r_k", -0.04)
    scale = constant(((1 + self.layer) / self.depth) ** 0.7)
    self.norm = HeadNorm(d // self._size, eps=self.norm_eps, use_bias=True, scale_init=scale, axis="heads")
    self.out_proj = dense(nn.initializers.zeros, ("heads", "embed"))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    size = self._size
    return State(S=jnp.zeros((batch, self.width // size, size, size)), last=jnp.zeros((batch, self.width)))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    (xr, xw, xk, xv, xa, xg), last = self._mixtures(x, state, where)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    by_head = lambda z: z.reshape(*z.shape[:-1], -1, self._size)
    log_a = -(np.e**-0.5) * jax.nn.sigmoid(self.w_lora(xw).astype(wide))
    rate = jax.nn.sigmoid(self.a_lora(xa).astype(wide))
    key = self.k_proj(xk).astype(wide)
    kappa = unit(by_head(key * self.k_k), 1e-24)
    r, k, rate = by_head(self.r_proj(xr)), by_head(key * (1 + (rate - 1) * self.k_a)), by_head(rate)
    v = by_head(self._values(xv, where.side.get("v_first")))
    y, S = delta_rule(r, k, v, kappa, state.S, -rate * kappa, by_head(log_a), **where.masks)
    own = jnp.sum(r * k * by_head(self.r_k), axis=-1, keepdims=True).astype(x.dtype) * v
    y = (self.norm(y.reshape(x.shape)) + own.reshape(x.shape)) * self.g_lora(xg)
    return self.out_proj(y), State(S, last)

  def offer(
    self, x: Float[Array, "b t d"], state: State, *, reset: Reset = None, lengths: Lengths = None
  ) -> Mapping[str, Float[Array, "b t d"]]:
    """Returns the values of this layer, which later layers read if it is the first."""
    (_, _, _, xv, _, _), _ = self._mixtures(blank_past(x, lengths), state, Where(reset, lengths))
    return {"v_first": self.v_proj(xv)}

  @property
  def _size(self) -> int:
    return self.head_size or largest_divisor(self.width, 64)

  @nn.nowrap
  def _lora(self, name: str, activation: str, bias: Initializer | None) -> LowRank:
    rank = getattr(self, f"{name}_rank") or max(32, round(RANKS[name] * self.width**0.5 / 32) * 32)
    up = nn.initializers.orthogonal(0.1 * max(1, rank / self.width) ** 0.5)
    return LowRank(self.width, rank, activation, nn.initializers.zeros, up, bias)

  def _mixtures(
    self, x: Float[Array, "b t d"], state: State, where: Where
  ) -> tuple[list[Float[Array, "b t d"]], Float[Array, "b d"]]:
    """Returns the mixtures for r, w, k, v, a and g, and the last token."""
    before, last = token_shift(x, state.last, **where.masks)
    return [x + (before - x) * mu.astype(x.dtype) for mu in self.mu], last

  def _values(self, x: Float[Array, "b t d"], first: Float[Array, "b t d"] | None) -> Float[Array, "b t d"]:
    v = self.v_proj(x)
    if first is None and not self.is_initializing():
      return v
    first = v if first is None else first.astype(v.dtype)
    return v + (first - v) * jax.nn.sigmoid(self.v_lora(x))


def _shapes(width: int, size: int, up: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Makes a line from -1/2 to 1/2 over all channels, a curve from -1 to 1 over each head's, and decays from -6 to 0."""
  line = np.arange(width) / max(1, width - 1)
  within = (np.arange(width) % size - (size - 1) / 2) / max(1, (size - 1) / 2)
  return line - 0.5, within * np.abs(within), -6 + 6 * line ** (1 + up**0.3)
