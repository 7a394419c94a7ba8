"""A linear map of the last axis by a block-diagonal matrix."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from layers.initializers import Initializer
from layers.param import param


class BlockDense(nn.Module):
  """y = x W + bias with `blocks` equal blocks in W: each slice of x is mapped by itself, in the dtype of x.

  Attributes:
    blocks: divides the last axis of x.
    features: size of the last axis of y; that of x if not given.
  """

  blocks: int
  features: int | None = None
  use_bias: bool = False
  # the fan-in is that of one block, not of the whole width
  kernel_init: Initializer = nn.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=(0,))
  bias_init: Initializer = nn.initializers.zeros

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b e"]:
    """x W + bias."""
    features = self.features or x.shape[-1]
    sizes = x.shape[-1] // self.blocks, features // self.blocks
    kernel = param(self, "kernel", self.kernel_init, (self.blocks, *sizes), ("heads", None, None))
    y = jnp.einsum("...hk,hkp->...hp", x.reshape(*x.shape[:-1], self.blocks, sizes[0]), kernel.astype(x.dtype))
    y = y.reshape(*x.shape[:-1], features)
    if self.use_bias:
      y = y + param(self, "bias", self.bias_init, (features,), ("inner",)).astype(x.dtype)
    return y
