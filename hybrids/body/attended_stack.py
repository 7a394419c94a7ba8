"""A stack whose layers attend over what earlier layers put out, in place of their sum; its state is the stack's."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Float

from hybrids import mixer as mixer_lib
from hybrids.body.streams import Streams
from hybrids.wrap.attention_residual import DepthAttention
from layers.norms import make_token_norm
from layers.sizes import at_least_one


class AttendedStack(Streams):
  """norm(sum_i a_i x_i): x, what its layers put out, `attention_residual`s, and a last query over all of these.

  Kimi Team 2026, arXiv:2603.15031 (AttnRes). Every letter is a layer: attention and its MLP are two. The layers pass on
  the sources side by side, so that memory for training without `remat` grows as their number times the depth; a few
  large blocks keep it small, and the paper has about eight.

  Attributes:
    stack: fields of the `stack`; its letters are mixers, or their `mixer` and `norm`. No mixer may offer arrays to
      later layers, as RWKV-7's first one does.
    norm: of letters that do not set one, and the last one.
    block, norm_eps: as in `attention_residual`: 1 layer for the full form, more for the block form.
  Raises:
    ValueError: when made, if a number is below 1, a letter has other fields, or the stack cannot be built.
  """

  width: int
  stack: Mapping[str, Any]
  norm: Mapping[str, Any] = FrozenDict(name="rms")
  block: int = 1
  norm_eps: float = 1e-5

  OWN = ("mixer", "norm")

  def __post_init__(self):
    self.norm = mixer_lib.frozen(self.norm)
    at_least_one(self, "block")
    super().__post_init__()

  @property
  def streams(self) -> int:
    """Returns the number of sources: x, and one for each block of layers."""
    return 1 + -(-self.stack.get("depth", 1) // self.block)

  def setup(self):
    super().setup()
    self.last_attention = DepthAttention(self.norm_eps)
    self.final_norm = make_token_norm(**self.norm)

  @nn.nowrap
  def connection(self, letter: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an attention residual around the letter's mixer."""
    own = dict(block=self.block, norm_eps=self.norm_eps)
    mixer = dict(name="attention_residual", **{"norm": self.norm, **fields}, **own)
    return dict(mixer=mixer, norm_position="none", skip=0.0)

  def joined(self, y: Float[Array, "*b e"]) -> Float[Array, "*b d"]:
    """Returns the normalised sum of all sources by the last query."""
    return self.final_norm(self.last_attention(y.reshape(*y.shape[:-1], self.streams, -1)))

  @nn.nowrap
  def spread(self, x: Float[Array, "*b d"]) -> Float[Array, "*b e"]:
    """Returns x and, for the blocks, zeros beside it."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, x.shape[-1] * (self.streams - 1))])
