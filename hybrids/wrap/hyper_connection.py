"""Several residual streams in place of one sum, read and written by learned weights; the state is the mixer's inside.

Zhu et al. 2024, arXiv:2409.19606 (hyper-connections); Xie et al. 2025, arXiv:2512.24880 (constrained to a manifold,
mHC), as in `models/glm5_next` of transformers. Theirs: n -> streams.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Float

from hybrids import mixer as mixer_lib
from hybrids.branch import check_norm
from hybrids.wrap.one_stream import OneStream
from layers import param
from layers.norms import make_token_norm
from layers.sizes import above_zero, at_least_one


class HyperConnection(OneStream):
  """x_i <- sum_j M_ji x_j + post_i f(norm(sum_j pre_j x_j)) for the streams x_i, which stand side by side in x.

  pre = sigmoid(s_1 W_1 u + b_1) + eps, post = 2 sigmoid(s_2 W_2 u + b_2), with u = x / rms(x), are numbers per stream,
  and M = softmax(s_3 W_3 u + b_3), after Sinkhorn's iterations, a matrix whose columns and nearly its rows sum to 1.
  These weights are computed in float32. The mixer is given the width of one stream. Departs: nothing.

  Attributes:
    mixer, norm: f and the norm before it, by `name` and arguments.
    streams: how many there are; the width is that of all together.
    iterations: divisions by the sums of the columns, with one by those of the rows between two.
    norm_eps: the epsilon of rms(x).
  Raises:
    ValueError: the streams do not divide the width, a number is out of range, or the mixer or the norm cannot be built.
  """

  width: int
  mixer: Mapping[str, Any]
  norm: Mapping[str, Any] = FrozenDict(name="rms")
  streams: int = 4
  iterations: int = 20
  eps: float = 1e-6
  norm_eps: float = 1e-5
  layer: int = 0
  depth: int = 1

  def __post_init__(self):
    self.mixer, self.norm = mixer_lib.frozen(self.mixer), mixer_lib.frozen(self.norm)
    at_least_one(self, "iterations")
    above_zero(self, "eps", "norm_eps")
    check_norm(self.norm)
    super().__post_init__()
    self.inside(parent=None)

  def setup(self):
    self.inner = self.inside()
    self.first_norm = make_token_norm(**self.norm, parent=None).copy(parent=self, name="norm")
    weights = self.streams * (self.streams + 2)
    small, zeros, ones = nn.initializers.normal(0.02), nn.initializers.zeros, nn.initializers.ones
    self.W = param(self, "W", small, (self.width, weights), ("embed", None))
    self.b = param(self, "b", zeros, (weights,), (None,))
    self.s = param(self, "s", ones, (3,), (None,))

  def collapse(
    self, x: Float[Array, "*b e"], side: Mapping[str, Array]
  ) -> tuple[Float[Array, "*b d"], tuple[Float[Array, "*b n"], Float[Array, "*b n d"]]]:
    """Returns the mixer's input; the weights of its output, and the mixed streams."""
    n, wide = self.streams, x.astype(jnp.promote_types(x.dtype, jnp.float32))
    u = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.norm_eps)
    logits = jnp.einsum("...e,ew->...w", u, self.W.astype(u.dtype), precision="highest")
    logits = logits * jnp.repeat(self.s, jnp.array([n, n, n * n]), total_repeat_length=n * (n + 2)) + self.b
    pre, post, M = jnp.split(logits, [n, 2 * n], axis=-1)
    streams = x.reshape(*x.shape[:-1], n, -1)
    M = self._balanced(jax.nn.softmax(M.reshape(*M.shape[:-1], n, n), axis=-1) + self.eps)
    z = jnp.einsum("...nd,...n->...d", streams, (jax.nn.sigmoid(pre) + self.eps).astype(x.dtype))
    rest = jnp.einsum("...nd,...nm->...md", streams, M.astype(x.dtype))
    return self.first_norm(z), ((2 * jax.nn.sigmoid(post)).astype(x.dtype), rest)

  def _balanced(self, M: Float[Array, "*b n n"]) -> Float[Array, "*b n n"]:
    over = lambda M, axis: M / (jnp.sum(M, axis=axis, keepdims=True) + self.eps)
    M = over(M, -2)
    for _ in range(self.iterations - 1):
      M = over(over(M, -1), -2)
    return M

  @nn.nowrap
  def expand(
    self, y: Float[Array, "*b d"], kept: tuple[Float[Array, "*b n"], Float[Array, "*b n d"]]
  ) -> Float[Array, "*b e"]:
    post, rest = kept
    out = rest + post[..., None] * y[..., None, :]
    return out.reshape(*out.shape[:-2], -1)
