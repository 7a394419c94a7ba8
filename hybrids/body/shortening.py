"""What bodies share that put out fewer tokens than they read."""

from collections.abc import Mapping

from jaxtyping import Array, Float

from kernels.inputs import Lengths, Reset
from layers.mixer import Mixer


class Shortening(Mixer):
  """A body whose outputs have a time axis of their own, which the lengths of its inputs do not fit. State: none."""

  STATE = "none"

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Reset = None,
    lengths: Lengths = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b s e"]:
    """Returns all outputs; see the class for their number and width."""
    return self.mix_parallel(*self._enter(x, reset, lengths, side))
