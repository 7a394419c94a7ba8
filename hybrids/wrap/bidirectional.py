"""Reading a sequence in both directions; there is no state: the whole sequence is needed at once."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybrids import mixer as mixer_lib
from kernels.inputs import Lengths, Reset
from layers import Dense, reversal
from layers.choices import one_of
from layers.mixer import Mixer, Where

MERGES = ("sum", "concat")


class Bidirectional(Mixer):
  """y = forward(x) + reverse(backward(reverse(x))), or W [forward; backward] if they are concatenated.

  Each row is reversed within its length, and each document within itself: the backward mixer starts anew at what was a
  document's last token. Both directions see the current token. Inputs beside the tokens are reversed with them, except
  for the gaps between samples, side["dt"], of which the backward mixer reads those after each token. If the mixer
  offers arrays to later layers, the backward one offers its own, as NAME_backward.

  Attributes:
    mixer: the wrapped mixer's `name` and arguments; its width is this one's.
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
    if not getattr(self._one_way(parent=None), "layer", 0):
      # layers are then alike, and made and run by one loop
      self.layer = 0
    super().__post_init__()

  @property
  def SIDE(self) -> tuple[str, ...]:
    """Returns the wrapped mixer's names, and where it offers arrays the same names for those of the backward mixer."""
    names = self._one_way(parent=None).SIDE
    return (*names, *map(_backward, names)) if self.OFFERS else names

  def setup(self):
    self.forward = self._one_way()
    if not self.shared:
      self.backward = self._one_way()
    if self.merge == "concat":
      self.out_proj = Dense(self.width, axes=("inner", "embed"))

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    names = self._one_way(parent=None).SIDE
    side = {name: where.side[name] for name in names if name in where.side}
    y = self.forward(x, **where.masks, side=side or None)
    order, back_reset = reversal.turned(x, where.reset, where.lengths)
    back_side = {name: reversal.at(where.side.get(_backward(name), value), order) for name, value in side.items()}
    if "dt" in side:
      back_side["dt"] = reversal.gaps(side["dt"], order, **where.masks, furthest=1)
    mixer = self.forward if self.shared else self.backward
    back = mixer(reversal.at(x, order), reset=back_reset, lengths=where.lengths, side=back_side or None)
    back = reversal.at(back, order)
    return y + back if self.merge == "sum" else self.out_proj(jnp.concatenate([y, back], axis=-1))

  def offer(
    self, x: Float[Array, "b t d"], state: Any, *, reset: Reset = None, lengths: Lengths = None
  ) -> Mapping[str, Float[Array, "b t d"]]:
    """Returns the arrays that the mixers of both directions offer to later layers, in the order of the tokens."""
    if not self.OFFERS:
      return {}
    empty = self._one_way(parent=None).init_state(*x.shape[:2])
    ahead = self.forward.offer(x, empty, reset=reset, lengths=lengths)
    order, back_reset = reversal.turned(x, reset, lengths)
    mixer = self.forward if self.shared else self.backward
    back = mixer.offer(reversal.at(x, order), empty, reset=back_reset, lengths=lengths)
    return {**ahead, **{_backward(name): reversal.at(value, order) for name, value in back.items()}}

  @property
  def OFFERS(self) -> bool:
    """Returns whether the wrapped mixer has arrays for later layers."""
    return mixer_lib.offers(self._one_way(parent=None))

  @nn.nowrap
  def _one_way(self, **kwargs) -> nn.Module:
    return mixer_lib.build_spec(self.mixer, width=self.width, layer=self.layer, depth=self.depth, **kwargs)


def _backward(name: str) -> str:
  return f"{name}_backward"
