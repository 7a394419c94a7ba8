"""Reading a sequence in both directions; the state is none: the whole sequence is needed at once."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hybrids import mixer as mixer_lib
from layers import Dense, reversal
from layers.choices import one_of

MERGES = ("sum", "concat")


class Bidirectional(nn.Module):
  """y = forward(x) + reverse(backward(reverse(x))), or W [forward; backward] if they are concatenated.

  Each row is reversed within its length, and each document within itself: the backward mixer starts anew at what was a
  document's last token. Both directions see the current token.

  Attributes:
    mixer: the wrapped mixer's `name` and arguments; its width is ours.
    merge: "sum", or "concat" followed by a linear map back to `width`.
    shared: both directions have the same parameters.
  Raises:
    ValueError: `merge` is unknown, or the mixer cannot be built.
  """

  width: int
  mixer: Mapping[str, Any]
  merge: str = "sum"
  shared: bool = False
  layer: int = 0
  depth: int = 1

  STATE = "none"

  def __post_init__(self):
    self.mixer = mixer_lib.frozen(self.mixer)
    one_of(self, merge=MERGES)
    super().__post_init__()
    self._one_way(parent=None)

  @property
  def SLOW(self) -> tuple[str, ...]:
    """The wrapped mixer's."""
    return self._one_way(parent=None).SLOW

  @property
  def SIDE(self) -> tuple[str, ...]:
    """The wrapped mixer's."""
    return self._one_way(parent=None).SIDE

  def setup(self):
    self.forward = self._one_way()
    if not self.shared:
      self.backward = self._one_way()
    if self.merge == "concat":
      self.out_proj = Dense(self.width, axes=("inner", "embed"))

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b t d"]:
    """All outputs; 0 past `lengths`."""
    order = reversal.order(x.shape[0], x.shape[1], lengths)
    back_reset = None if reset is None else reversal.at(reversal.last_of_document(reset), order)
    back_side = None if side is None else {name: reversal.at(value, order) for name, value in side.items()}
    backward = self.forward if self.shared else self.backward
    y = self.forward(x, reset=reset, lengths=lengths, side=side)
    back = backward(reversal.at(x, order), reset=back_reset, lengths=lengths, side=back_side)
    back = reversal.at(back, order)
    return y + back if self.merge == "sum" else self.out_proj(jnp.concatenate([y, back], axis=-1))

  @nn.nowrap
  def _one_way(self, **kwargs) -> nn.Module:
    return mixer_lib.build_spec(self.mixer, width=self.width, layer=self.layer, depth=self.depth, **kwargs)
