"""Kimi delta attention: the delta rule on a state whose key channels each decay by themselves. State: fixed.

Kimi Team 2025, arXiv:2510.26692. Theirs: alpha -> a, d_k and d_v -> k and p.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.delta_rule import delta_rule
from layers import Dense, GatedRMSNorm, param, torch_dense
from layers.choices import one_of
from layers.initializers import log_uniform, softplus_step, uniform_fan_in
from layers.low_rank import LowRank
from layers.mixer import Mixer, Where
from layers.qkv import ConvQKV
from layers.sizes import at_least_one, largest_divisor, scaled
from mistake import Mistake

MAPS = ("low_rank", "full")


class State(NamedTuple):
  S: Float[Array, "b h k p"]  # float32
  taps: Float[Array, "b w e"]  # the last inputs of the short convolution


class KDA(Mixer):
  """S_t = (I - beta_t k_t k_t^T) diag(a_t) S_{t-1} + beta_t k_t v_t^T,  y_t = S_t^T q_t / sqrt(k)     eq. (1)

  for each head, with q, k and v after a short convolution and SiLU, q and k of length 1, beta = sigmoid(W_b x) (twice
  that with negative eigenvalues, Grazzi et al. 2025, arXiv:2411.12537), log a = -exp(A_log) softplus(W_2 W_1 x +
  dt_bias), and W_o (norm(y) sigmoid(V_2 V_1 x)) as the result. A_log is a number per head. With `lower_bound`, log a =
  lower_bound sigmoid(exp(A_log) (W_2 W_1 x + dt_bias)), which no token's decay falls below (GLM-5 Next and Ling 3 have
  -5). Departs: nothing.

  Attributes:
    heads: as many as fill the width, if not given.
    head_size: k; the largest divisor of the width not above 128, if not given.
    expand_v: p / k; p is also the size of W_1 x and V_1 x.
    maps: W_2 W_1 and V_2 V_1 are of "low_rank", or each one "full" matrix (Ling 3).
    lower_bound: the least log a, below 0; if not given, there is none. With it A_log starts at 0, as in GLM-5 Next.
    taps: width of the short convolution.
    negative_eigenvalues: whether beta reaches 2.
    gate_bias: whether V_2 has a bias, as in flash-linear-attention.
    A_min, A_max: exp(A_log) starts uniform in [A_min, A_max].
    dt_min, dt_max, dt_floor: softplus(dt_bias) starts log-uniform in [dt_min, dt_max], and at least at dt_floor.
    depth: layers of the model; W_o starts smaller by its square root.
  """

  width: int
  heads: int | None = None
  head_size: int | None = None
  expand_v: float = 1.0
  maps: str = "low_rank"
  lower_bound: float | None = None
  taps: int = 4
  negative_eigenvalues: bool = False
  gate_bias: bool = False
  norm_eps: float = 1e-5
  A_min: float = 1.0
  A_max: float = 16.0
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  dt_floor: float = 1e-4
  depth: int = 1

  def setup(self):
    self.qkv = self._qkv()
    heads, k, p = self.qkv.heads, self.qkv.key_size, self.qkv.value_size
    self.make_gates()
    if self.maps == "full":
      dense = functools.partial(torch_dense, axes=("embed", "heads"), fan_in=self.width)
      self.a_proj, self.g_proj = dense(heads * k), dense(heads * p, use_bias=self.gate_bias)
    else:
      self.a_proj = LowRank(heads * k, p)
      self.g_proj = LowRank(heads * p, p, bias_init=uniform_fan_in(p) if self.gate_bias else None)
    A_log = log_uniform(self.A_min, self.A_max) if self.lower_bound is None else nn.initializers.zeros
    self.A_log = param(self, "A_log", A_log, (heads,), ("heads",), slow=True)
    dt_bias = softplus_step(self.dt_min, self.dt_max, self.dt_floor)
    self.dt_bias = param(self, "dt_bias", dt_bias, (heads * k,), ("heads",), slow=True)
    self.gated_norm = GatedRMSNorm("norm_first", eps=self.norm_eps, axis=None, gate="sigmoid")
    self.out_proj = torch_dense(self.width, ("heads", "embed"), gain=self.depth**-0.5)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    qkv = self._qkv(parent=None)
    return State(S=jnp.zeros((batch, qkv.heads, qkv.key_size, qkv.value_size)), taps=qkv.init_taps(batch))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    (q, k, v), taps = self.qkv(x, state.taps, **where.masks)
    at, written, found = self.update(x, k, v)
    log_a = self._log_decay((self.a_proj(x).astype(k.dtype) + self.dt_bias).reshape(k.shape))
    y, S = delta_rule(q, at, written, jnp.exp(log_a) * found, state.S, None, log_a, **where.masks)
    y = self.gated_norm(y, self.g_proj(x).reshape(y.shape)).reshape(*x.shape[:-1], -1)
    return self.out_proj(y), State(S, taps)

  def make_gates(self) -> None:
    """Makes the maps of `update`."""
    self.b_proj = self._gate(self.qkv.heads)

  def update(
    self, x: Float[Array, "b t d"], k: Float[Array, "b t h k"], v: Float[Array, "b t h p"]
  ) -> tuple[Float[Array, "b t h k"], Float[Array, "b t h p"], Float[Array, "b t h k"]]:
    """Returns the keys and values that are written, and the keys whose values are taken away for that."""
    beta = jax.nn.sigmoid(self.b_proj(x).astype(k.dtype)) * (2 if self.negative_eigenvalues else 1)
    return beta[..., None] * k, v, k

  @nn.nowrap
  def _gate(self, features: int) -> nn.Module:
    return Dense(features, kernel_init=uniform_fan_in(), axes=("embed", "heads"))

  def _log_decay(self, f: Float[Array, "b t h k"]) -> Float[Array, "b t h k"]:
    rate = jnp.exp(self.A_log)[:, None]
    return -rate * jax.nn.softplus(f) if self.lower_bound is None else self.lower_bound * jax.nn.sigmoid(rate * f)

  @nn.nowrap
  def _qkv(self, **kwargs) -> ConvQKV:
    heads, size = _sizes(self)
    return ConvQKV(heads, heads, size, scaled(self.expand_v, size), taps=self.taps, **kwargs)

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "heads", "head_size", "taps", "depth")
    one_of(self, maps=MAPS)
    if self.lower_bound is not None and not self.lower_bound < 0:
      raise Mistake(
        f"{type(self).__name__}: lower_bound={self.lower_bound}; it is the least logarithm of a decay, so it must be "
        "below 0"
      )
    heads, size = _sizes(self)
    if size < 1:
      raise Mistake(f"{type(self).__name__}: heads={heads} of width={self.width} leave no channel; give head_size")
    if scaled(self.expand_v, size) < 1:
      raise Mistake(f"{type(self).__name__}: expand_v={self.expand_v} of head_size={size} leaves no channel")
    log_uniform(self.A_min, self.A_max)  # raises
    softplus_step(self.dt_min, self.dt_max)  # raises


def _sizes(module: KDA) -> tuple[int, int]:
  """Returns the number of heads, and the size of a key."""
  size = module.head_size or (
    largest_divisor(module.width, 128) if module.heads is None else module.width // module.heads
  )
  return module.heads or max(1, module.width // max(1, size)), size
