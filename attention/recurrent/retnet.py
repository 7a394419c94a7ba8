"""RetNet: linear attention with a constant decay for each head and rotary positions. State: fixed.

Sun et al. 2023, arXiv:2307.08621. Theirs: Q, K, V -> q, k, v, gamma -> a, d_head -> k, n -> t.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from kernels.documents import positions
from kernels.ssd import ssd
from layers import Dense, RMSNorm
from layers.mixer import Mixer, Where
from layers.rotation import phases, rotate
from layers.sizes import at_least_one, largest_divisor, scaled
from mistake import Mistake


class State(NamedTuple):
  S: Float[Array, "b h k p"]  # float32
  length: Int[Array, "b"]  # tokens of the document so far


class RetNet(Mixer):
  """S_t = a S_{t-1} + k_t v_t^T,  y_t = S_t^T q_t / sqrt(k)  for each head, a = 1 - 2^(-5-head)     eqs. (6), (8)

  q and k are linear in x, their pairs of channels turned by angles that are linear in t; v is linear in x, and
  W_o (SiLU(W_g x) norm(y)) is the result.
  Departs: as in the authors' code, norm is an RMS norm of each head without a scale, not a GroupNorm, and y is divided
  by sqrt(1 + a + .. + a^t) before it, which only its eps can tell. Their parallel form also divides y by the sum of
  its weights if that is above 1, which no state can know and which the norm undoes.

  Attributes:
    heads: the largest number not above 8 that divides the width into even parts, and the values, if not given.
    expand_v: width of the values of all heads / d.
  """

  width: int
  heads: int | None = None
  expand_v: float = 2.0
  norm_eps: float = 1e-6

  def setup(self):
    _, values = self._sizes
    dense = lambda features, axes, gain=2**-2.5: Dense(features, kernel_init=_glorot(gain), axes=axes)
    self.q_proj, self.k_proj = dense(self.width, ("embed", "heads")), dense(self.width, ("embed", "kv"))
    self.v_proj, self.g_proj = dense(values, ("embed", "kv")), dense(values, ("embed", "heads"))
    self.norm = RMSNorm(eps=self.norm_eps, use_scale=False)
    self.out_proj = dense(self.width, ("heads", "embed"), gain=0.5)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    heads, values = self._sizes
    S = jnp.zeros((batch, heads, self.width // heads, values // heads))
    return State(S=S, length=jnp.zeros((batch,), jnp.int32))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    q, k, v = (z.reshape(*x.shape[:-1], self._sizes[0], -1) for z in (self.q_proj(x), self.k_proj(x), self.v_proj(x)))
    position, length = positions(state.length, x.shape[1], **where.masks)
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    turn, (log_a, total) = _turns(position, q.shape[-1], dtype), _decays(position, self._sizes[0], dtype)
    q, k = (rotate(z.astype(dtype), turn) for z in (q, k))
    q = q * (q.shape[-1] * total[..., None]) ** -0.5
    y, S = ssd(q, k, v, log_a, state.S, **where.masks)
    y = self.norm(y).reshape(*x.shape[:-1], -1) * jax.nn.silu(self.g_proj(x))
    return self.out_proj(y), State(S, length)

  @property
  def _sizes(self) -> tuple[int, int]:
    """Returns the number of heads, and the width of all values."""
    values = scaled(self.expand_v, self.width)
    return self.heads or largest_divisor(max(1, math.gcd(self.width // 2, values)), 8), values

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "heads")
    heads, values = self._sizes
    if values < 1:
      raise Mistake(f"RetNet: expand_v={self.expand_v} of width={self.width} leaves no channel")
    if self.heads is None and self.width % 2:
      raise Mistake(f"RetNet: width={self.width} is odd; pairs of channels turn")
    if self.width % heads or values % heads:
      raise Mistake(f"RetNet: heads={heads} does not divide width={self.width} and {values} values")
    if self.width // heads % 2:
      raise Mistake(f"RetNet: heads={heads} of width={self.width} have odd size {self.width // heads}; pairs turn")


def _glorot(gain: float) -> nn.initializers.Initializer:
  """U(-r, r) with r = gain sqrt(6 / (rows + columns))."""
  return nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform")


def _turns(position: Int[Array, "b t"], size: int, dtype: jnp.dtype) -> Complex[Array, "b t 1 s"]:
  """exp(i position f) for frequencies f from 1 to 1/10000."""
  angle = phases(position, 10000.0 ** -np.linspace(0, 1, size // 2), dtype)[:, :, None]
  return jax.lax.complex(jnp.cos(angle), jnp.sin(angle))


def _decays(
  position: Int[Array, "b t"], heads: int, dtype: jnp.dtype
) -> tuple[Float[Array, "b t h"], Float[Array, "b t h"]]:
  """log a, and 1 + a + .. + a^position."""
  lost = 2.0 ** (-5 - np.arange(heads))
  log_a = jnp.broadcast_to(jnp.asarray(np.log1p(-lost), dtype), (*position.shape, heads))
  return log_a, -jnp.expm1((position[..., None] + 1).astype(dtype) * log_a) / jnp.asarray(lost, dtype)
