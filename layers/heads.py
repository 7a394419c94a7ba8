"""Queries, keys and values of heads that share out the width, and the way back."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from layers.dense import Dense
from layers.initializers import Initializer
from layers.sizes import at_least_one, largest_divisor
from mistake import Mistake

GLOROT = nn.initializers.glorot_uniform()


class Heads(nn.Module):
  """q, k, v = W_q x, W_k x, W_v x cut into heads, and W_o of the heads' answers side by side.

  Attributes:
    bias: whether the four maps have biases, which start at 0.
  """

  width: int
  heads: int
  bias: bool = False
  kernel_init: Initializer = GLOROT

  def setup(self):
    dense = lambda *axes: Dense(self.width, use_bias=self.bias, kernel_init=self.kernel_init, axes=axes)
    self.q_proj, self.k_proj, self.v_proj = dense("embed", "heads"), dense("embed", "kv"), dense("embed", "kv")
    self.out_proj = dense("heads", "embed")

  def __call__(
    self, x: Float[Array, "b t d"]
  ) -> tuple[Float[Array, "b t h k"], Float[Array, "b t h k"], Float[Array, "b t h k"]]:
    """Returns q, k and v by heads."""
    q, k, v = (split(proj(x), self.heads) for proj in (self.q_proj, self.k_proj, self.v_proj))
    return q, k, v

  def out(self, y: Float[Array, "b t h k"]) -> Float[Array, "b t d"]:
    """Computes W_o y."""
    return self.out_proj(y.reshape(*y.shape[:2], self.width))


def split(z: Float[Array, "*b e"], heads: int) -> Float[Array, "*b h k"]:
  """Cuts the last axis into parts."""
  return z.reshape(*z.shape[:-1], heads, -1)


def count(module: Any, most: int = 8) -> int:
  """Returns `heads` of a mixer of that `width`; if not given, the largest divisor of the width not above `most`.

  Raises:
    ValueError: a size is below 1, or the heads do not divide the width.
  """
  at_least_one(module, "width", "heads")
  heads = module.heads or largest_divisor(module.width, most)
  if module.width % heads:
    raise Mistake(f"{type(module).__name__}: heads={heads} does not divide width={module.width}")
  return heads
