"""Attention over what earlier layers put out, in place of their sum; the state is that of the mixer inside.

Kimi Team 2026, arXiv:2603.15031 (attention residuals, AttnRes). Theirs: v_i, b_n -> sources, L -> depth, S -> block.
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
from layers import RMSNorm, param
from layers.norms import make_token_norm
from layers.sizes import above_zero, at_least_one
from mistake import Mistake

# the input per token that says which layers have put something out, 1 for those and 0 for others
DONE = "layers_done"


class DepthAttention(nn.Module):
  """sum_i a_i x_i with a = softmax_i(w . RMSNorm(x_i)) over the sources x_i that there are; w, the query, is learned.

  w starts at 0, so that the sum starts as the mean (sec. 5). Sums and weights are computed in at least float32.
  """

  norm_eps: float = 1e-5

  @nn.compact
  def __call__(self, x: Float[Array, "*b n d"], filled: Float[Array, "*b n"] | None = None) -> Float[Array, "*b d"]:
    """Returns the weighted sum; `filled` is 1 for the sources that there are, which are all where it is not given."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    keys = RMSNorm(eps=self.norm_eps, name="norm")(wide)
    w = param(self, "query", nn.initializers.zeros, x.shape[-1:], ("embed",))
    logits = jnp.einsum("...nd,d->...n", keys, w.astype(wide.dtype), precision="highest")
    logits = logits if filled is None else jnp.where(filled > 0, logits, -jnp.inf)
    return jnp.einsum("...n,...nd->...d", jax.nn.softmax(logits, axis=-1), wide, precision="highest").astype(x.dtype)


class AttentionResidual(OneStream):
  """x_n <- x_n + f(norm(z)), z = sum_i a_i x_i as in `DepthAttention`, for sources x_i that stand side by side in x.

  x_0 is what the first layer reads, and x_n the sum of what the layers of block n have put out, `block` layers each. A
  layer attends to x_0, all earlier blocks and, if it is not the first one of its block, what this one has so far; n
  follows from the layers that came before, which a stack hands on. With blocks of one layer each layer's output is a
  source by itself (eq. (2)); larger ones are the block form (eqs. (5) and (6)). Departs: nothing.

  Attributes:
    width: of all sources together, depth / block, rounded up, and one.
    mixer, norm: f and the norm before it, by `name` and arguments; f has the width of one source.
    block: layers that make one source.
    norm_eps: the epsilon of the norm of the sources.
  Raises:
    ValueError: the sources do not divide the width, a number is out of range, or the mixer or the norm cannot be built.
  """

  width: int
  mixer: Mapping[str, Any]
  norm: Mapping[str, Any] = FrozenDict(name="rms")
  block: int = 1
  norm_eps: float = 1e-5
  layer: int = 0
  depth: int = 1

  def __post_init__(self):
    self.mixer, self.norm = mixer_lib.frozen(self.mixer), mixer_lib.frozen(self.norm)
    at_least_one(self, "block", "depth")
    above_zero(self, "norm_eps")
    check_norm(self.norm)
    super().__post_init__()
    if mixer_lib.offers(self.inside(parent=None)):
      raise Mistake(
        f"attention_residual: mixer {self.mixer['name']!r} offers arrays to later layers before it is known what it "
        "reads; use another mixer"
      )

  @property
  def streams(self) -> int:
    """Returns the number of sources."""
    return 1 + -(-self.depth // self.block)

  @property
  def SIDE(self) -> tuple[str, ...]:
    """Returns the names of the inputs per token that the wrapped mixer reads, and that of the layers before."""
    return (*super().SIDE, DONE)

  @property
  def CARRIES(self) -> Mapping[str, int]:
    """Returns names and widths of what layers hand on: which of them are done, and what the wrapped mixer does."""
    return {**super().CARRIES, DONE: self.depth}

  def setup(self):
    self.inner = self.inside()
    self.depth_attention = DepthAttention(self.norm_eps)
    self.first_norm = make_token_norm(**self.norm, parent=None).copy(parent=self, name="norm")

  def collapse(
    self, x: Float[Array, "*b e"], side: Mapping[str, Array]
  ) -> tuple[Float[Array, "*b d"], tuple[Float[Array, "*b e"], Float[Array, "*b n"]]]:
    """Returns the mixer's input; the sources, and 1 for the one that its output is added to."""
    before = side.get(DONE, jnp.zeros((*x.shape[:-1], self.depth), x.dtype)).astype(x.dtype)
    after = jnp.concatenate([jnp.ones_like(before[..., :1]), before[..., :-1]], axis=-1)
    if self.is_mutable_collection("carried") and not self.is_initializing():
      self.put_variable("carried", DONE, after)
    ones = jnp.ones_like(before[..., :1])
    filled = jnp.concatenate([ones, jnp.max(self._blocks(before), axis=-1)], axis=-1)
    written = jnp.concatenate([0 * ones, jnp.sum(self._blocks(after - before), axis=-1)], axis=-1)
    z = self.depth_attention(x.reshape(*x.shape[:-1], self.streams, -1), filled)
    return self.first_norm(z), (x, written)

  @nn.nowrap
  def expand(
    self, y: Float[Array, "*b d"], kept: tuple[Float[Array, "*b e"], Float[Array, "*b n"]]
  ) -> Float[Array, "*b e"]:
    x, written = kept
    return x + (written[..., None] * y[..., None, :]).reshape(x.shape)

  @nn.nowrap
  def _blocks(self, layers: Float[Array, "*b l"]) -> Float[Array, "*b n s"]:
    """Returns numbers of layers by block; 0 for those that the last block lacks."""
    lacking = (self.streams - 1) * self.block - self.depth
    padded = jnp.pad(layers, [(0, 0)] * (layers.ndim - 1) + [(0, lacking)])
    return padded.reshape(*layers.shape[:-1], self.streams - 1, self.block)
