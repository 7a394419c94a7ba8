"""A stack whose layers read several streams by gates and write to all of them; its state is that of the stack."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from hybrids.body.streams import Streams
from hybrids.wrap.gated_residual import Gather
from layers.sizes import at_least_one
from mistake import Mistake


class GatedStack(Streams):
  """gather(x_1, …, x_n) of streams x_i that are all x before the first layer, with `gated_residual`s as layers.

  As in `models/qwen4_exp` of transformers; the last `Gather` has weights of its own, and there is no other norm.

  Attributes:
    stack: fields of the `stack`; its letters are mixers.
    whole: letters whose mixers read all streams side by side, and are added to them: `engram`.
    streams, rank, norm_eps: as in `gated_residual`.
  Raises:
    ValueError: when made, if a number is below 1, a letter has other fields, or the stack cannot be built.
  """

  width: int
  stack: Mapping[str, Any]
  whole: str = ""
  streams: int = 4
  rank: int | None = None
  norm_eps: float = 1e-6

  def __post_init__(self):
    at_least_one(self, "rank")
    super().__post_init__()
    known = sorted(self.stack.get("letters", {}))
    if unknown := sorted(set(self.whole) - set(known)):
      raise Mistake(f"GatedStack: whole={self.whole!r} names {unknown}; the letters are {known}")

  def setup(self):
    super().setup()
    self.last = Gather(self.width * self.streams, self.streams, self._rank, self.norm_eps)

  @nn.nowrap
  def connection(self, letter: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a gated residual around the letter's mixer, or a sum where it reads all streams."""
    if letter in self.whole:
      return dict(mixer=fields["mixer"], norm_position="none")
    own = dict(streams=self.streams, rank=self._rank, norm_eps=self.norm_eps)
    return dict(mixer=dict(name="gated_residual", **fields, **own), norm_position="none", skip=0.0)

  def joined(self, y: Float[Array, "*b e"]) -> Float[Array, "*b d"]:
    """Returns what the last gates read of the streams."""
    return self.last(y)[0]

  @property
  def _rank(self) -> int:
    return self.rank or max(1, self.width * self.streams // 8)
