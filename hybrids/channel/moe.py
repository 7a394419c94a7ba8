"""A mixture of experts: each token passes a few of many perceptrons; its state is fixed, and empty."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hybrids.channel.gated_mlp import ACTIVATIONS
from kernels.inputs import valid
from layers import param
from layers.choices import one_of
from layers.mixer import Mixer, Stateless, Where
from mistake import Mistake

SCORES = ("softmax", "softmax_of_chosen")


class MoE(Mixer):
  """y = Σ_e g_e W_2e (f(W_ge x) * W_1e x) over the `top_k` experts with the largest router logits W_r x.

  g is the softmax of all logits, or of those chosen (Jamba, Mixtral), which is that of all divided by its sum over the
  chosen. The router works in float32. What is sown under "losses", weights included, for training to add:
  balance    balance · experts · Σ_e f_e P_e, with f_e the share of choices that fall on e and P_e the mean of its
             probability (Fedus et al. 2022, arXiv:2101.03961, eqs. 4-6)
  router_z   router_z · mean(log(Σ exp(logits))²) (Zoph et al. 2022, arXiv:2202.08906, eq. 5)
  Departs: every expert is computed for every token, and those not chosen are weighed by 0; nothing is dropped.

  Attributes:
    inner: channels of each expert; None is 8/3 of `width` rounded up to a multiple of 8.
    scores: "softmax", or "softmax_of_chosen".
    renormalize: g is divided by its sum over the chosen.
  Raises:
    ValueError: there are fewer experts than `top_k`, a size is below 1, or a name is unknown.
  """

  width: int
  experts: int = 8
  top_k: int = 2
  inner: int | None = None
  activation: str = "silu"
  scores: str = "softmax"
  renormalize: bool = False
  balance: float = 0.01
  router_z: float = 0.0
  depth: int = 1

  def __post_init__(self):
    one_of(self, activation=ACTIVATIONS, scores=SCORES)
    if not 1 <= self.top_k <= self.experts:
      raise Mistake(f"moe: top_k={self.top_k} of experts={self.experts}; it is at least 1 and at most all")
    if self.inner is not None and self.inner < 1:
      raise Mistake(f"moe: inner={self.inner}; it needs at least 1")
    super().__post_init__()

  def setup(self):
    inner = -(-self.width // 3) * 8 if self.inner is None else self.inner
    init = lambda gain: nn.initializers.variance_scaling(gain / 3, "fan_in", "uniform", batch_axis=(0,))
    into, out = (self.experts, self.width, inner), (self.experts, inner, self.width)
    self.router = param(self, "router", nn.initializers.normal(0.02), (self.width, self.experts), ("embed", None))
    self.gate_proj = param(self, "gate_proj", init(1.0), into, (None, "embed", "mlp"))
    self.in_proj = param(self, "in_proj", init(1.0), into, (None, "embed", "mlp"))
    self.out_proj = param(self, "out_proj", init(1 / self.depth), out, (None, "mlp", "embed"))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> Stateless:
    return Stateless()

  def mix(self, x: Float[Array, "b t d"], state: Stateless, where: Where) -> tuple[Float[Array, "b t d"], Stateless]:
    here = jnp.ones(x.shape[:2], bool) if where.lengths is None else valid(where.lengths, x.shape[1])
    logits = self._logits(x)
    weights = self._weights(logits)
    self._sow(logits, weights, here)
    return self._experts(x, weights), state

  def mix_token(
    self, x: Float[Array, "b d"], state: Stateless, side: Mapping[str, Array]
  ) -> tuple[Float[Array, "b d"], Stateless]:
    return self._experts(x, self._weights(self._logits(x))), state

  def _logits(self, x: Float[Array, "*b d"]) -> Float[Array, "*b e"]:
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.einsum("...d,de->...e", x.astype(wide), self.router.astype(wide), precision="highest")

  @nn.nowrap
  def _weights(self, logits: Float[Array, "*b e"]) -> Float[Array, "*b e"]:
    """Returns g of every expert, 0 for the experts that are not among the `top_k`."""
    _, chosen = jax.lax.top_k(logits, self.top_k)
    mask = jnp.sum(jax.nn.one_hot(chosen, self.experts, dtype=logits.dtype), axis=-2)
    if self.scores == "softmax_of_chosen":
      return jax.nn.softmax(jnp.where(mask > 0, logits, -jnp.inf), axis=-1)
    weights = mask * jax.nn.softmax(logits, axis=-1)
    return weights / jnp.sum(weights, axis=-1, keepdims=True) if self.renormalize else weights

  def _experts(self, x: Float[Array, "*b d"], weights: Float[Array, "*b e"]) -> Float[Array, "*b d"]:
    gate, into, out = (w.astype(x.dtype) for w in (self.gate_proj, self.in_proj, self.out_proj))
    z = ACTIVATIONS[self.activation](jnp.einsum("...d,edf->...ef", x, gate)) * jnp.einsum("...d,edf->...ef", x, into)
    return jnp.einsum("...ef,efd->...d", z * weights[..., None].astype(x.dtype), out)

  def _sow(self, logits: Float[Array, "b t e"], weights: Float[Array, "b t e"], here: Bool[Array, "b t"]) -> None:
    """Sows the losses of the tokens outside the padding."""
    n = jnp.maximum(jnp.sum(here), 1)
    mean = lambda z: jnp.sum(jnp.where(here[..., None], z, 0), axis=(0, 1)) / n
    shares = mean((weights > 0) / self.top_k)
    if self.balance:
      balance = self.experts * jnp.sum(shares * mean(jax.nn.softmax(logits, axis=-1)))
      self.sow("losses", "balance", self.balance * balance)
    if self.router_z:
      squares = jnp.square(jax.nn.logsumexp(logits, axis=-1, keepdims=True))
      self.sow("losses", "router_z", self.router_z * mean(squares)[0])
