"""The base class of layers that make one vector of several residual streams for the mixer inside, whose state it is."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from hybrids import mixer as mixer_lib
from kernels.inputs import Lengths, Reset
from layers.mixer import Mixer, Where
from mistake import Mistake


class OneStream(Mixer):
  """Streams that stand side by side in x become one, f reads it, and what it returns is written to the streams.

  A subclass has the fields `width`, of all streams together, `mixer`, `layer` and `depth`, the number of `streams`, and
  `collapse` and `expand`; it sets up `inner`.
  """

  @property
  def STATE(self) -> str:
    """Returns the STATE of the wrapped mixer."""
    return self.inside(parent=None).STATE

  @property
  def SIDE(self) -> tuple[str, ...]:
    """Returns the names of the inputs per token that the wrapped mixer reads."""
    return self.inside(parent=None).SIDE

  @property
  def CARRIES(self) -> Mapping[str, int]:
    """Returns names and widths of what the wrapped mixer takes from the layer before, and hands on."""
    return getattr(self.inside(parent=None), "CARRIES", {})

  @property
  def OFFERS(self) -> bool:
    """Returns whether the wrapped mixer has arrays for later layers."""
    return mixer_lib.offers(self.inside(parent=None))

  def collapse(self, x: Float[Array, "*b e"], side: Mapping[str, Array]) -> tuple[Float[Array, "*b d"], Any]:
    """Returns the mixer's input, and what `expand` wants; `side` has the inputs beside each token."""
    raise TypeError(f"{type(self).__name__} defines no collapse(x, side)")

  def expand(self, y: Float[Array, "*b d"], kept: Any) -> Float[Array, "*b e"]:
    """Returns the streams after the mixer's output was written to them."""
    raise TypeError(f"{type(self).__name__} defines no expand(y, kept)")

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> Any:
    if self.STATE == "none":
      raise Mistake(f"mixer {self.mixer['name']!r} reads the whole sequence at once: no state, prefill or step")
    return self.inside(parent=None).init_state(batch, max_len)

  def mix(self, x: Float[Array, "b t e"], state: Any, where: Where) -> tuple[Float[Array, "b t e"], Any]:
    z, kept = self.collapse(x, where.side)
    y, state = self.inner.prefill(z, state, **where.masks, side=self._of_inner(where.side))
    return self.expand(y, kept), state

  def mix_parallel(self, x: Float[Array, "b t e"], where: Where) -> Float[Array, "b t e"]:
    z, kept = self.collapse(x, where.side)
    return self.expand(self.inner(z, **where.masks, side=self._of_inner(where.side)), kept)

  def mix_token(self, x: Float[Array, "b e"], state: Any, side: Mapping[str, Array]) -> tuple[Float[Array, "b e"], Any]:
    z, kept = self.collapse(x, side)
    y, state = self.inner.step(z, state, side=self._of_inner(side))
    return self.expand(y, kept), state

  def offer(
    self, x: Float[Array, "b t e"], state: Any, *, reset: Reset = None, lengths: Lengths = None
  ) -> Mapping[str, Array]:
    """Returns the arrays that the wrapped mixer offers to later layers."""
    return self.inner.offer(self.collapse(x, {})[0], state, reset=reset, lengths=lengths)

  @nn.nowrap
  def _of_inner(self, side: Mapping[str, Array]) -> dict[str, Array]:
    names = self.inside(parent=None).SIDE
    return {name: value for name, value in side.items() if name in names}

  @nn.nowrap
  def inside(self, **kwargs: Any) -> nn.Module:
    """Builds the mixer inside, which has the width of one stream."""
    place = dict(layer=self.layer, depth=self.depth)
    return mixer_lib.build_spec(self.mixer, width=self.width // self.streams, **place, **kwargs)

  @nn.nowrap
  def check(self) -> None:
    if self.streams < 1 or self.width % self.streams:
      name = type(self).__name__
      raise Mistake(f"{name}: streams={self.streams} do not divide width={self.width}, that of all together")
