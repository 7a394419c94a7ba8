"""Gated DeltaNet: the delta rule on a state that decays, as Mamba-2's does. State: fixed.

Yang, Kautz & Hatamizadeh 2025, arXiv:2412.06464. Theirs: S -> S^T, alpha -> a.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.delta_rule import delta_rule
from layers import Dense, GatedRMSNorm, param, torch_dense
from layers.choices import one_of
from layers.initializers import log_uniform, softplus_step, uniform_fan_in
from layers.mixer import Mixer, Where
from layers.norms import GATES
from layers.qkv import ConvQKV
from layers.sizes import at_least_one, largest_divisor, scaled
from mistake import Mistake


class State(NamedTuple):
  S: Float[Array, "b h k p"]  # float32
  taps: Float[Array, "b w e"]  # the last inputs of the short convolution


class GatedDeltaNet(Mixer):
  """S_t = a_t S_{t-1} + beta_t k_t (v_t - a_t S_{t-1}^T k_t)^T,  y_t = S_t^T q_t / sqrt(k)  for each head     eq. (10)

  with q, k and v after a short convolution and SiLU, q and k of length 1, beta = sigmoid(W_b x) (twice that with
  negative eigenvalues, Grazzi et al. 2025, arXiv:2411.12537), log a = -exp(A_log) softplus(W_a x + dt_bias) and
  W_o (norm(y) SiLU(W_g x)) as the result.
  Departs: A starts uniform in [1e-3, 16], not in [0, 16], where its logarithm could be infinite.

  Attributes:
    heads: of queries and keys; as many as fill 3/4 of the width, if not given.
    head_size: k; the largest divisor of 3/4 of the width not above 256, if not given.
    value_heads: a multiple of `heads`, which neighbouring heads of values then share; `heads` if not given.
    expand_v: p / k.
    taps: width of the short convolution.
    negative_eigenvalues: whether beta reaches 2.
    gate: of the outputs: "silu", as above, or "sigmoid" (Qwen4-Exp).
    A_min, A_max: -A = exp(A_log) starts uniform in [A_min, A_max].
    dt_min, dt_max, dt_floor: softplus(dt_bias) starts log-uniform in [dt_min, dt_max], and at least at dt_floor.
    depth: layers of the model; W_o starts smaller by its square root.
  """

  width: int
  heads: int | None = None
  head_size: int | None = None
  value_heads: int | None = None
  expand_v: float = 2.0
  taps: int = 4
  negative_eigenvalues: bool = False
  gate: str = "silu"
  norm_eps: float = 1e-5
  A_min: float = 1e-3
  A_max: float = 16.0
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  dt_floor: float = 1e-4
  depth: int = 1

  @property
  def updates(self) -> int:
    """Returns how many keys and values a token writes."""
    return 1

  @property
  def decays(self) -> bool:
    """Returns whether the state decays."""
    return True

  def setup(self):
    self.qkv = self._qkv()
    heads, size = self.qkv.value_heads, self.qkv.value_size
    dense = lambda features: Dense(features, kernel_init=uniform_fan_in(), axes=("embed", "heads"))
    self.b_proj, self.g_proj = dense(self.updates * heads), dense(heads * size)
    if self.decays:
      self.a_proj = dense(heads)
      self.A_log = param(self, "A_log", log_uniform(self.A_min, self.A_max), (heads,), ("heads",), slow=True)
      dt_bias = softplus_step(self.dt_min, self.dt_max, self.dt_floor)
      self.dt_bias = param(self, "dt_bias", dt_bias, (heads,), ("heads",), slow=True)
    self.gated_norm = GatedRMSNorm("norm_first", eps=self.norm_eps, axis=None, gate=self.gate)
    self.out_proj = torch_dense(self.width, ("heads", "embed"), gain=self.depth**-0.5)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    qkv = self._qkv(parent=None)
    return State(S=jnp.zeros((batch, qkv.value_heads, qkv.key_size, qkv.value_size)), taps=qkv.init_taps(batch))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    (q, k, v), taps = self.qkv(x, state.taps, **where.masks)
    beta = jax.nn.sigmoid(self.b_proj(x).astype(k.dtype)) * (2 if self.negative_eigenvalues else 1)
    log_a = None
    if self.decays:
      log_a = -jnp.exp(self.A_log) * jax.nn.softplus(self.a_proj(x).astype(k.dtype) + self.dt_bias)
    y, S = self.rule(q, k, v, beta, log_a, state.S, where)
    y = self.gated_norm(y, self.g_proj(x).reshape(y.shape)).reshape(*x.shape[:-1], -1)
    return self.out_proj(y), State(S, taps)

  @nn.nowrap
  def rule(
    self,
    q: Float[Array, "b t h k"],
    k: Float[Array, "b t h k"],
    v: Float[Array, "b t h p"],
    beta: Float[Array, "b t h"],
    log_a: Float[Array, "b t h"] | None,
    S: Float[Array, "b h k p"],
    where: Where,
  ) -> tuple[Float[Array, "b t h p"], Float[Array, "b h k p"]]:
    """Runs the recurrence of all heads; returns what is read of the state at each token, and the last state."""
    log_a = None if log_a is None else log_a[..., None]
    found = k if log_a is None else jnp.exp(log_a) * k
    return delta_rule(q, beta[..., None] * k, v, found, S, None, log_a, **where.masks)

  @nn.nowrap
  def _qkv(self, **kwargs) -> ConvQKV:
    heads, value_heads, size = _sizes(self)
    values = scaled(self.expand_v, size)
    return ConvQKV(heads, value_heads, size, values, taps=self.taps, updates=self.updates, **kwargs)

  @nn.nowrap
  def check(self) -> None:
    one_of(self, gate=GATES)
    at_least_one(self, "width", "heads", "head_size", "value_heads", "taps", "depth")
    heads, value_heads, size = _sizes(self)
    if value_heads % heads:
      raise Mistake(f"{type(self).__name__}: heads={heads} does not divide value_heads={value_heads}")
    if scaled(self.expand_v, size) < 1:
      raise Mistake(f"{type(self).__name__}: expand_v={self.expand_v} of head_size={size} leaves no channel")
    log_uniform(self.A_min, self.A_max)  # raises
    softplus_step(self.dt_min, self.dt_max)  # raises


def _sizes(module: GatedDeltaNet) -> tuple[int, int, int]:
  """Returns the numbers of heads of queries and keys and of heads of values, and the size of a key."""
  keys = max(1, 3 * module.width // 4)
  size = module.head_size or (largest_divisor(keys, 256) if module.heads is None else max(1, keys // module.heads))
  heads = module.heads or max(1, keys // size)
  return heads, module.value_heads or heads, size
