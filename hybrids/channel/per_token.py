"""The contract of a mixer that sees one token at a time, so that a channel mixer is its equation and no more."""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int

from layers.lengths import blank_past


class State(NamedTuple):
  """Nothing is remembered."""


class PerToken(nn.Module):
  """A mixer whose output depends on the token alone; the subclass has `mix`, and states what a mixer states."""

  def mix(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Every token by itself."""
    raise NotImplementedError(f"{type(self).__name__} must define mix")

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    """Nothing."""
    return State()

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b t d"]:
    """All tokens; 0 past `lengths`."""
    return blank_past(self.mix(blank_past(x, lengths)), lengths)

  def prefill(
    self,
    x: Float[Array, "b t d"],
    state: State,
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> tuple[Float[Array, "b t d"], State]:
    """All tokens, whatever came before."""
    return self(x, lengths=lengths), state

  def step(
    self, x: Float[Array, "b d"], state: State, *, side: Mapping[str, Array] | None = None
  ) -> tuple[Float[Array, "b d"], State]:
    """One token."""
    return self.mix(x), state
