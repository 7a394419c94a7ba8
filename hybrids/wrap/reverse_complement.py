"""Reading both strands of DNA with one mixer; there is no state: the whole sequence is needed at once."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybrids import mixer as mixer_lib
from layers import reversal
from layers.choices import one_of
from layers.mixer import Mixer, Where
from mistake import Mistake

MERGES = ("both", "sum")


class ReverseComplement(Mixer):
  """y = [M(f), R M(R r)] with x = [f, r]     Schiff et al. 2024, arXiv:2403.03234, sec. 3.2 (their RC module)

  R reverses a sequence within its length, each document within itself, and the order of its channels: it is what the
  reverse complement of a sequence does to the halves of the embedding `strands`. The mixer M reads the forward strand
  in f and the other one, as it would be read, in R r. So R y(x) = y(R x) holds exactly, whatever M is. M may be a whole
  body, such as a stack: its layers leave the strands apart as Caduceus's do.

  Attributes:
    mixer: the wrapped mixer's `name` and fields; its width is half of this one's.
    merge: "both" strands' outputs side by side; or their "sum", the second with its channels in the order of the first,
      whose mean over time is the same for a sequence and its reverse complement.
  Raises:
    ValueError: the width is odd, `merge` is unknown, or the mixer cannot be built.
  """

  width: int
  mixer: Mapping[str, Any]
  merge: str = "both"
  layer: int = 0
  depth: int = 1

  STATE = "none"

  def __post_init__(self):
    self.mixer = mixer_lib.frozen(self.mixer)
    one_of(self, merge=MERGES)
    if self.width % 2:
      raise Mistake(f"ReverseComplement: width={self.width}; it must be even, half of it for each strand")
    if mixer_lib.offers(self._strand(parent=None)):
      raise Mistake(
        f"reverse_complement: mixer {self.mixer['name']!r} offers arrays to later layers, "
        "which do not reach them from inside; wrap a whole stack of them"
      )
    super().__post_init__()

  @property
  def out_width(self) -> int:
    """Returns the width of the outputs."""
    return self.width if self.merge == "both" else self.width // 2

  def setup(self):
    self.strand = self._strand()

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t e"]:
    forward, other = jnp.split(x, 2, axis=-1)
    order, reset = reversal.turned(x, where.reset, where.lengths)
    y = self.strand(forward, **where.masks)
    back = reversal.at(self.strand(reversal.at(other, order)[..., ::-1], reset=reset, lengths=where.lengths), order)
    return jnp.concatenate([y, back[..., ::-1]], axis=-1) if self.merge == "both" else y + back

  @nn.nowrap
  def _strand(self, **kwargs: Any) -> nn.Module:
    return mixer_lib.build_spec(self.mixer, width=self.width // 2, layer=self.layer, depth=self.depth, **kwargs)
