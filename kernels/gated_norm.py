"""RMS normalisation with a gate before or after it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

ORDERS = ("gate_first", "norm_first")
# even in float32, one over its root and one over that of its cube are finite, as a value and its gradient need
LEAST = 1e-24


def gated_rms_norm(
  y: Float[Array, "*b e"], gate: Float[Array, "*b e"], scale: Float[Array, "e"], *, order: str, groups: int, eps: float
) -> Float[Array, "*b e"]:
  """scale norm(y gate) ("gate_first") or scale norm(y) gate ("norm_first"), with norm(y) = y / sqrt(mean(y^2) + eps).

  Each of the `groups` equal parts of the last axis has its own mean.
  """
  if order == "gate_first":
    y = y * gate
  parts = y.reshape(*y.shape[:-1], groups, -1)
  mean_square = jnp.mean(jnp.square(parts), axis=-1, keepdims=True)
  y = (parts * inverse_root(mean_square, eps)).reshape(y.shape) * scale
  return y * gate if order == "norm_first" else y


def inverse_root(mean_square: Float[Array, "*b"], eps: float) -> Float[Array, "*b"]:
  """1 / sqrt(mean_square + eps); without an eps finite too, so that zeros, as in the padding, stay zeros."""
  return jax.lax.rsqrt(mean_square + max(eps, LEAST))
