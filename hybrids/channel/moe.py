"""A mixture of experts: each token passes a few of many perceptrons; its state is fixed, and empty."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hybrids.channel.gated_mlp import GatedMLP
from hybrids.channel.mlp import MLP
from hybrids.channel.routing import SCORES, CarriedRouter, Routes, route, use
from kernels.experts import experts
from kernels.inputs import valid
from layers import Dense, buffer, param
from layers.activations import some
from layers.choices import one_of
from layers.initializers import constant, uniform_fan_in
from layers.mixer import Mixer, Stateless, Where
from layers.sizes import above_zero, at_least_one, at_least_zero
from mistake import Mistake

# the name of the vector that routers hand from layer to layer
ROUTER = "router"
ACTIVATIONS = some("silu", "gelu", "gelu_tanh", "relu", "relu2")


class MoE(Mixer):
  """y = Σ_e g_e W_2e (f(W_ge x) * W_1e x) over the `top_k` experts that a router chooses, and S(x) of a shared one.

  The router works in float32: logits W_r x, scores s of them, and g = scale · s of the chosen, which are those of the
  largest s, or s + selection_bias (DeepSeek-AI 2024, arXiv:2412.19437, sec. 2.1.2). No token is dropped; those of the
  padding go to no expert. What is sown under "losses", weights included, for training to add:
  balance    balance · experts · Σ_e f_e P_e, with f_e the share of choices that fall on e and P_e the mean of its
             probability, s / Σ s (Fedus et al. 2022, arXiv:2101.03961, eqs. 4-6)
  router_z   router_z · mean(log(Σ exp(logits))²) (Zoph et al. 2022, arXiv:2202.08906, eq. 5)
  and f under "intermediates" as `share`. Departs: nothing.

  Attributes:
    inner: channels of each expert; None is 8/3 of `width` rounded up to a multiple of 8.
    gated: whether experts have W_g; without it they are W_2e f(W_1e x), as in Nemotron 3.
    scores: s is the "softmax" of all logits (Jamba), the "softmax_of_chosen" (Mixtral, Granite), or the "sigmoid"
      (DeepSeek-V3, Kimi, Nemotron 3).
    selection_bias: whether the buffer of that name, one number an expert, is added to s for choosing, and only there.
    bias_rate: by how much each call that may change buffers, as in training, raises the bias of experts that are chosen
      less than their share, and lowers that of the others (Wang et al. 2024, arXiv:2408.15664, alg. 1; DeepSeek-V3).
    skip_expert: whether a last expert, beside the others, can be chosen that does nothing (Zaya). The selection bias
      has a number for it, which starts at -1.
    router_size: if given, the router is a perceptron on a vector of that size, to which that of the layer before is
      added (Zaya); norm_eps is the epsilon of its norm. Otherwise it is one matrix.
    groups, top_groups: experts are chosen from the `top_groups` best of `groups` equal parts; all if not given.
    renormalize: g is divided by its sum over the chosen plus renormalize_eps (DeepSeek-V3 1e-20, LFM2 1e-6).
    limit: bounds what enters the product of an expert, and of the shared one, as in `gated_mlp`.
    shared: channels of the shared expert, which every token passes; None: there is none. Several shared experts are
      one of all their channels.
    shared_gate: whether S(x) is multiplied by sigmoid(w · x) (Qwen3-Next).
    latent: the size to which x is mapped for the routed experts, and from which their sum is mapped back (Nemotron 3
      Super); the router and the shared expert read x itself.
  Raises:
    ValueError: there are fewer experts than `top_k`, or fewer of them in `top_groups` groups; the groups do not divide
      the experts; a size is below 1; `shared_gate` stands without `shared`; or a name is unknown.
  """

  width: int
  experts: int = 8
  top_k: int = 2
  inner: int | None = None
  activation: str = "silu"
  gated: bool = True
  scores: str = "softmax"
  selection_bias: bool = False
  bias_rate: float = 1e-3
  skip_expert: bool = False
  router_size: int | None = None
  norm_eps: float = 1e-5
  groups: int = 1
  top_groups: int | None = None
  renormalize: bool = False
  renormalize_eps: float = 0.0
  scale: float = 1.0
  limit: float | None = None
  shared: int | None = None
  shared_gate: bool = False
  latent: int | None = None
  balance: float = 0.01
  router_z: float = 0.0
  depth: int = 1

  @nn.nowrap
  def check(self) -> None:
    one_of(self, activation=ACTIVATIONS, scores=SCORES)
    at_least_one(self, "width", "inner", "groups", "top_groups", "shared", "latent", "router_size", "depth")
    experts, groups, kept = self.experts, self.groups, self.top_groups or self.groups
    if not 1 <= self.top_k <= experts:
      raise Mistake(f"moe: top_k={self.top_k} of experts={experts}; it is at least 1 and at most all")
    if self.skip_expert and groups > 1:
      raise Mistake(f"moe: skip_expert=True with groups={groups}; the expert that does nothing is in no group")
    if experts % groups:
      raise Mistake(f"moe: groups={groups} do not divide experts={experts}")
    if kept > groups or self.top_k > kept * (experts // groups):
      what = f"top_groups={kept} of groups={groups} with {experts // groups} experts each"
      raise Mistake(f"moe: {what}; there must be as many groups, and experts enough in them for top_k={self.top_k}")
    at_least_zero(self, "renormalize_eps", "bias_rate", "norm_eps")
    above_zero(self, "limit")
    if self.limit is not None and not self.gated:
      raise Mistake(f"moe: limit={self.limit} with gated=False; it bounds what a gate multiplies")
    if self.shared_gate and self.shared is None:
      raise Mistake("moe: shared_gate=True is the gate of a shared expert; give shared, its channels")

  @property
  def CARRIES(self) -> Mapping[str, int]:
    """Returns the name and the width of the router's vector, which layers hand on, if there is one."""
    return {} if self.router_size is None else {ROUTER: self.router_size}

  @property
  def SIDE(self) -> tuple[str, ...]:
    """Returns the name of the router's vector of the layer before, if there is one."""
    return tuple(self.CARRIES)

  def setup(self):
    inner, d, out = self._inner, self.latent or self.width, 1 / self.depth
    init = lambda gain: nn.initializers.variance_scaling(gain / 3, "fan_in", "uniform", batch_axis=(0,))
    stacked = lambda name, gain, shape, axes: param(
      self, name, init(gain), (self.experts, *shape), ("expert", *axes), used=self.top_k / self.experts
    )
    if self.router_size is None:
      shape = self.width, self._choices
      self.router = param(self, "router", nn.initializers.normal(0.02), shape, ("embed", None))
    else:
      self.router_mlp = CarriedRouter(self._choices, self.router_size, self.norm_eps)
    if self.selection_bias:
      start = constant(-1.0 * (jnp.arange(self._choices) == self.experts))
      self.bias = buffer(self, "selection_bias", start, (self._choices,), (None,))
    if self.gated:
      self.gate_proj = stacked("gate_proj", 1.0, (d, inner), ("embed", "mlp"))
    self.in_proj = stacked("in_proj", 1.0, (d, inner), ("embed", "mlp"))
    self.out_proj = stacked("out_proj", 1.0 if self.latent else out, (inner, d), ("mlp", "embed"))
    if self.latent:
      self.latent_in = Dense(d, kernel_init=uniform_fan_in(), axes=("embed", None))
      self.latent_out = Dense(self.width, kernel_init=uniform_fan_in(gain=out**0.5), axes=(None, "embed"))
    if self.shared:
      shape = dict(inner=self.shared, activation=self.activation, depth=self.depth)
      self.shared_expert = GatedMLP(self.width, limit=self.limit, **shape) if self.gated else MLP(self.width, **shape)
    if self.shared_gate:
      self.shared_gate_proj = Dense(1, kernel_init=uniform_fan_in(), axes=("embed", None))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> Stateless:
    return Stateless()

  def mix(self, x: Float[Array, "b t d"], state: Stateless, where: Where) -> tuple[Float[Array, "b t d"], Stateless]:
    here = jnp.ones(x.shape[:2], bool) if where.lengths is None else valid(where.lengths, x.shape[1])
    logits = self._logits(x, where.side)
    routes = self._route(logits)
    used = use(logits, routes, here)
    self._sow(used)
    if self.selection_bias and self.is_mutable_collection("buffers") and not self.is_initializing():
      # without a token no expert is chosen less than another
      step = self.bias_rate * jnp.sign(1 / self._choices - used.share) * jnp.any(here)
      self.put_variable("buffers", "selection_bias", self.bias + step)
    chosen = jnp.where(here[..., None], routes.chosen, self.experts)
    return self._experts(x, routes._replace(chosen=chosen)), state

  def mix_token(
    self, x: Float[Array, "b d"], state: Stateless, side: Mapping[str, Array]
  ) -> tuple[Float[Array, "b d"], Stateless]:
    return self._experts(x, self._route(self._logits(x, side))), state

  def _logits(self, x: Float[Array, "*b d"], side: Mapping[str, Array]) -> Float[Array, "*b e"]:
    wide = jnp.promote_types(x.dtype, jnp.float32)
    if self.router_size is not None:
      before = side.get(ROUTER, jnp.zeros((*x.shape[:-1], self.router_size)))
      logits, after = self.router_mlp(x.astype(wide), before.astype(wide))
      if self.is_mutable_collection("carried") and not self.is_initializing():
        self.put_variable("carried", ROUTER, after.astype(x.dtype))
      return logits
    return jnp.einsum("...d,de->...e", x.astype(wide), self.router.astype(wide), precision="highest")

  def _route(self, logits: Float[Array, "*b e"]) -> Routes:
    return route(
      logits,
      self.bias if self.selection_bias else None,
      scores=self.scores,
      top_k=self.top_k,
      groups=self.groups,
      top_groups=self.top_groups or self.groups,
      renormalize=self.renormalize,
      renormalize_eps=self.renormalize_eps,
      scale=self.scale,
    )

  def _experts(self, x: Float[Array, "*b d"], routes: Routes) -> Float[Array, "*b d"]:
    u = self.latent_in(x) if self.latent else x
    y = self._routed(u, routes.chosen, routes.weights)
    y = self.latent_out(y) if self.latent else y
    if self.shared:
      shared = self.shared_expert.mix_channels(x)
      y = y + (shared * jax.nn.sigmoid(self.shared_gate_proj(x)) if self.shared_gate else shared)
    return y

  def _routed(
    self, x: Float[Array, "*b d"], chosen: Int[Array, "*b k"], weights: Float[Array, "*b k"]
  ) -> Float[Array, "*b d"]:
    """Returns the weighted sum of the chosen experts."""
    matrices = self.in_proj, self.out_proj, self.gate_proj if self.gated else None
    settings: dict[str, Any] = dict(activation=ACTIVATIONS[self.activation], limit=self.limit)
    if x.ndim == 2:
      return experts(x[:, None], chosen[:, None], weights[:, None], *matrices, **settings)[:, 0]
    return experts(x, chosen, weights, *matrices, **settings)

  def _sow(self, used) -> None:
    self.sow("intermediates", "share", used.share)
    if self.balance:
      self.sow("losses", "balance", self.balance * used.balance)
    if self.router_z:
      self.sow("losses", "router_z", self.router_z * used.router_z)

  @property
  def _choices(self) -> int:
    """Returns the experts, and the one that does nothing."""
    return self.experts + self.skip_expert

  @property
  def _inner(self) -> int:
    return -(-self.width // 3) * 8 if self.inner is None else self.inner
