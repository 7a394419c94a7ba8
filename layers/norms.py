"""Normalisation over the last axis, or by statistics of a batch; float32 inside, the input's dtype outside."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels.gated_norm import ORDERS, gated_rms_norm, inverse_root
from layers.activations import some
from layers.choices import one_of
from layers.initializers import Initializer
from layers.param import buffer, param
from mistake import Mistake

GATES = some("silu", "sigmoid")


class _Norm(nn.Module):
  """Refuses an eps below 0, which makes the root NaN."""

  def __post_init__(self):
    if not 0 <= self.eps < 1:
      raise Mistake(f"{type(self).__name__}: eps={self.eps}; it must be at least 0 and below 1, e.g. 1e-5")
    super().__post_init__()


class RMSNorm(_Norm):
  """y = scale x / sqrt(mean(x^2) + eps)     Zhang & Sennrich 2019, arXiv:1910.07467, eq. (4).

  Attributes:
    use_scale: whether there is a scale to learn; else it is 1.
    use_bias: whether a bias is added.
    groups: equal parts of the last axis, each of which has its own mean; the scale has the whole axis.
  Raises:
    ValueError: when called, if the groups do not divide the axis.
  """

  eps: float = 1e-5
  axis: str | None = "embed"
  use_scale: bool = True
  use_bias: bool = False
  groups: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """x scaled to a root mean square of `scale`, and shifted by `bias` if there is one."""
    wide = at_least_float32(x)
    if self.groups < 1 or x.shape[-1] % self.groups:
      raise Mistake(f"RMSNorm: groups={self.groups} do not divide the {x.shape[-1]} features")
    parts = wide if self.groups == 1 else wide.reshape(*x.shape[:-1], self.groups, -1)
    y = parts * inverse_root(jnp.mean(jnp.square(parts), axis=-1, keepdims=True), self.eps)
    y = y.reshape(x.shape)
    if self.use_scale:
      y = y * param(self, "scale", nn.initializers.ones, x.shape[-1:], (self.axis,)).astype(wide.dtype)
    if self.use_bias:
      y = y + param(self, "bias", nn.initializers.zeros, x.shape[-1:], (self.axis,)).astype(wide.dtype)
    return y.astype(x.dtype)


class LayerNorm(_Norm):
  """y = scale (x - mean(x)) / sqrt(var(x) + eps) + bias     Ba, Kiros & Hinton 2016, arXiv:1607.06450, eq. (4)."""

  eps: float = 1e-5
  axis: str | None = "embed"

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """x shifted and scaled to mean `bias` and standard deviation `scale`."""
    wide = at_least_float32(x)
    scale = param(self, "scale", nn.initializers.ones, x.shape[-1:], (self.axis,))
    bias = param(self, "bias", nn.initializers.zeros, x.shape[-1:], (self.axis,))
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    y = centred * inverse_root(variance, self.eps) * scale.astype(wide.dtype) + bias.astype(wide.dtype)
    return y.astype(x.dtype)


class BatchNorm(_Norm):
  """y = scale (x - mean) / sqrt(var + eps) + bias     Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1

  mean and var are running averages in the collection "batch_stats": an affine map of each token by itself. In training,
  see `of_batch`, they are those of all tokens of the batch, wherever these lie. Departs: the averages are of the biased
  variance, as in Flax, where torch takes the unbiased one.

  Attributes:
    momentum: the weight of the old averages in the new ones.
  """

  eps: float = 1e-5
  momentum: float = 0.9
  axis: str | None = "embed"

  def __post_init__(self):
    if not 0 <= self.momentum < 1:
      raise Mistake(f"BatchNorm: momentum={self.momentum}; it must be at least 0 and below 1, e.g. 0.9")
    super().__post_init__()

  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """x shifted and scaled as the running averages say."""
    return self._normalised(x)

  def of_batch(self, x: Float[Array, "b t d"], lengths: Int[Array, "b"] | None) -> Float[Array, "b t d"]:
    """x by its own statistics where "batch_stats" is mutable, as in training, which then move on; else as if called.

    Tokens past the lengths count for nothing.
    """
    return self._normalised(x, lengths, self.is_mutable_collection("batch_stats") and not self.is_initializing())

  @nn.compact
  def _normalised(self, x: Array, lengths: Array | None = None, learns: bool = False) -> Array:
    wide, zeros, ones = at_least_float32(x), nn.initializers.zeros, nn.initializers.ones
    scale, bias = (
      param(self, name, init, x.shape[-1:], (self.axis,)).astype(wide.dtype)
      for name, init in (("scale", ones), ("bias", zeros))
    )
    kept = [
      buffer(self, name, init, x.shape[-1:], (self.axis,), collection="batch_stats")
      for name, init in (("mean", zeros), ("var", ones))
    ]
    mean, variance = (z.astype(wide.dtype) for z in kept)
    if learns:
      counted = jnp.ones(x.shape[:2], bool) if lengths is None else jnp.arange(x.shape[1]) < lengths[:, None]
      # a batch of padding alone has no statistics
      average = lambda z, old: jnp.where(jnp.any(counted), jnp.mean(z, axis=(0, 1), where=counted[..., None]), old)
      mean = average(wide, mean)
      variance = average(jnp.square(wide - mean), variance)
      for name, old, new in zip(("mean", "var"), kept, (mean, variance)):
        moved = self.momentum * old + (1 - self.momentum) * new
        self.put_variable("batch_stats", name, moved.astype(old.dtype))
    return ((wide - mean) * inverse_root(variance, self.eps) * scale + bias).astype(x.dtype)


class HeadNorm(_Norm):
  """y = scale (x - mean(x)) / sqrt(var(x) + eps) over each of `heads` slices of the last axis: LayerNorm by groups.

  Wu & He 2018, arXiv:1803.08494, for one token.

  Attributes:
    use_bias: whether one is added.
  Raises:
    ValueError: when called, if the slices have one entry each, as the result is then the same for all x.
  """

  heads: int
  eps: float = 1e-5
  axis: str | None = "inner"
  use_bias: bool = False
  scale_init: Initializer = nn.initializers.ones

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """x with every slice shifted and scaled to mean 0, or `bias`, and standard deviation `scale`."""
    if x.shape[-1] == self.heads:
      raise Mistake(f"HeadNorm: {self.heads} heads of {self.heads} channels have one each, which less its mean is 0")
    scale = param(self, "scale", self.scale_init, x.shape[-1:], (self.axis,))
    wide = at_least_float32(x).reshape(*x.shape[:-1], self.heads, x.shape[-1] // self.heads)
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    y = (centred * inverse_root(variance, self.eps)).reshape(x.shape)
    y = y * scale.astype(y.dtype)
    if self.use_bias:
      y = y + param(self, "bias", nn.initializers.zeros, x.shape[-1:], (self.axis,)).astype(y.dtype)
    return y.astype(x.dtype)


class GatedRMSNorm(_Norm):
  """scale norm(y SiLU(z)) or scale norm(y) SiLU(z), with norm(y) = y / sqrt(mean(y^2) + eps).

  Attributes:
    order: "gate_first", the former (Mamba-2), or "norm_first", the latter (Mamba-3, gated delta nets).
    groups: equal parts of the last axis, each of which has its own mean; the scale has the whole axis.
    gate: "silu", or "sigmoid" in its place (KDA).
  Raises:
    ValueError: no order or gate has that name; the groups do not divide the axis.
  """

  order: str
  groups: int = 1
  eps: float = 1e-5
  axis: str | None = "inner"
  gate: str = "silu"

  def __post_init__(self):
    one_of(self, order=ORDERS, gate=GATES)
    super().__post_init__()

  def __call__(self, y: Float[Array, "*b e"], z: Float[Array, "*b e"]) -> Float[Array, "*b e"]:
    """y normalised and gated by z."""
    if y.shape[-1] % self.groups:
      raise Mistake(f"GatedRMSNorm: groups={self.groups} do not divide the {y.shape[-1]} features")
    wide, gate, scale = at_least_float32(y), GATES[self.gate](at_least_float32(z)), self.scale(y.shape[-1])
    wide = gated_rms_norm(wide, gate, scale.astype(wide.dtype), order=self.order, groups=self.groups, eps=self.eps)
    return wide.astype(y.dtype)

  @nn.compact
  def scale(self, features: int) -> Float[Array, "e"]:
    """Returns the scale itself, for an op that has the norm in it."""
    return param(self, "scale", nn.initializers.ones, (features,), (self.axis,))


NORMS = {"rms": RMSNorm, "layer": LayerNorm, "batch": BatchNorm}


def make_norm(name: str, **kwargs) -> nn.Module:
  """Builds the norm of that name.

  Raises:
    ValueError: no norm is called `name`.
  """
  if name not in NORMS:
    raise Mistake(f"norm: no norm {name!r}; choose from {sorted(NORMS)}")
  return NORMS[name](**kwargs)


def make_token_norm(name: str, **kwargs) -> nn.Module:
  """Builds the norm of that name for where a batch's statistics are not learned.

  Raises:
    ValueError: no norm is called `name`, or it needs them.
  """
  if name == "batch":
    raise Mistake("norm 'batch' learns in branches and as a stack's last norm; here choose from ['layer', 'rms']")
  return make_norm(name, **kwargs)


def at_least_float32(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
  """Returns bfloat16 as float32, and others as they are."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
