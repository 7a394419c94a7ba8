"""Normalisation over the last axis, in float32 inside and the input's dtype outside."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from layers.param import param


class RMSNorm(nn.Module):
  """y = scale x / sqrt(mean(x^2) + eps)     Zhang & Sennrich 2019, arXiv:1910.07467, eq. (4)."""

  eps: float = 1e-5
  axis: str | None = "embed"

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """x scaled to a root mean square of `scale`."""
    wide = _wide(x)
    scale = param(self, "scale", nn.initializers.ones, x.shape[-1:], (self.axis,))
    mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(mean_square + self.eps) * scale.astype(wide.dtype)).astype(x.dtype)


class LayerNorm(nn.Module):
  """y = scale (x - mean(x)) / sqrt(var(x) + eps) + bias     Ba, Kiros & Hinton 2016, arXiv:1607.06450, eq. (4)."""

  eps: float = 1e-5
  axis: str | None = "embed"

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """x shifted and scaled to mean `bias` and standard deviation `scale`."""
    wide = _wide(x)
    scale = param(self, "scale", nn.initializers.ones, x.shape[-1:], (self.axis,))
    bias = param(self, "bias", nn.initializers.zeros, x.shape[-1:], (self.axis,))
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    y = centred * jax.lax.rsqrt(variance + self.eps) * scale.astype(wide.dtype) + bias.astype(wide.dtype)
    return y.astype(x.dtype)


class HeadNorm(nn.Module):
  """y = scale (x - mean(x)) / sqrt(var(x) + eps) over each of `heads` slices of the last axis: LayerNorm by groups.

  Wu & He 2018, arXiv:1803.08494, for one token, without a bias.
  """

  heads: int
  eps: float = 1e-5
  axis: str | None = "inner"

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """x with every slice shifted and scaled to mean 0 and standard deviation `scale`."""
    scale = param(self, "scale", nn.initializers.ones, x.shape[-1:], (self.axis,))
    wide = _wide(x).reshape(*x.shape[:-1], self.heads, x.shape[-1] // self.heads)
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    y = (centred * jax.lax.rsqrt(variance + self.eps)).reshape(x.shape)
    return (y * scale.astype(y.dtype)).astype(x.dtype)


NORMS = {"rms": RMSNorm, "layer": LayerNorm}


def make_norm(name: str, **kwargs) -> nn.Module:
  """The norm of that name.

  Raises:
    ValueError: no norm is called `name`.
  """
  if name not in NORMS:
    raise ValueError(f"norm: no norm {name!r}; choose from {sorted(NORMS)}")
  return NORMS[name](**kwargs)


def _wide(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
