"""A linear map of the last axis."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from layers.initializers import Initializer


class Dense(nn.Module):
  """y = x W + bias over the last axis, in the dtype of x; Flax's own Dense returns float32 for bfloat16 in.

  Attributes:
    features: size of the last axis of y; that of x is inferred.
    axes: logical names of W's two axes; the bias has the second.
  """

  features: int
  use_bias: bool = False
  kernel_init: Initializer = nn.initializers.lecun_normal()
  bias_init: Initializer = nn.initializers.zeros
  axes: tuple[str | None, str | None] = ("embed", "inner")

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b e"]:
    """x W + bias."""
    kernel_init = nn.with_logical_partitioning(self.kernel_init, self.axes)
    kernel = self.param("kernel", kernel_init, (x.shape[-1], self.features), jnp.float32)
    y = x @ kernel.astype(x.dtype)
    if self.use_bias:
      bias_init = nn.with_logical_partitioning(self.bias_init, self.axes[1:])
      y = y + self.param("bias", bias_init, (self.features,), jnp.float32).astype(x.dtype)
    return y
