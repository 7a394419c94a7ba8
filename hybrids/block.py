"""One layer of a stack: a residual branch around a mixer."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int

from hybrids import mixer as mixer_lib
from layers import make_norm
from mistake import Mistake

NORM_POSITIONS = ("pre", "post")


class Block(nn.Module):
  """x + dropout(mixer(norm(x))), or norm(x + dropout(mixer(x))) with norm_position "post".

  Has a mixer's methods and state. Dropout is on iff a `dropout` rng is given.

  Attributes:
    spec: the mixer's `name` and arguments; its width is ours.
    layer: which layer of the stack this is, counted from 0; with `depth`, for initialisers that want to know.
  Raises:
    ValueError: when made, if a name is unknown or `dropout` out of range; when used, if the mixer cannot be built.
  """

  width: int
  spec: Mapping[str, Any]
  norm_name: str = "rms"
  norm_position: str = "pre"
  dropout: float = 0.0
  layer: int = 0
  depth: int = 1

  def __post_init__(self):
    self.spec = mixer_lib.frozen(self.spec)
    if self.norm_position not in NORM_POSITIONS:
      raise Mistake(f"no norm_position {self.norm_position!r}; choose from {list(NORM_POSITIONS)}")
    if not 0 <= self.dropout < 1:
      raise Mistake(f"dropout={self.dropout}; it is the share of values dropped, from 0 to below 1")
    make_norm(self.norm_name, parent=None)
    super().__post_init__()

  def setup(self):
    self.norm = make_norm(self.norm_name)
    self.mixer = self.bare()
    self.drop = nn.Dropout(self.dropout)

  @nn.nowrap
  def bare(self, **kwargs) -> nn.Module:
    """The mixer alone; with `parent=None`, to be asked for what needs no parameters."""
    return mixer_lib.build_spec(self.spec, width=self.width, layer=self.layer, depth=self.depth, **kwargs)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> Any:
    """The mixer's.

    Raises:
      ValueError: the mixer has none.
    """
    mixer = self.bare(parent=None)
    if mixer.STATE == "none":
      raise Mistake(f"mixer {self.spec['name']!r} reads the whole sequence at once: no state, prefill or step")
    return mixer.init_state(batch, max_len)

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b t d"]:
    """All outputs. Past `lengths` they are x, whatever it holds."""
    return self._join(x, self.mixer(self._enter(x), reset=reset, lengths=lengths, side=side))

  def prefill(
    self,
    x: Float[Array, "b t d"],
    state: Any,
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> tuple[Float[Array, "b t d"], Any]:
    """All outputs, going on from `state`, and the state after each row's last token."""
    y, state = self.mixer.prefill(self._enter(x), state, reset=reset, lengths=lengths, side=side)
    return self._join(x, y), state

  def step(
    self, x: Float[Array, "b d"], state: Any, *, side: Mapping[str, Array] | None = None
  ) -> tuple[Float[Array, "b d"], Any]:
    """One token."""
    y, state = self.mixer.step(self._enter(x), state, side=side)
    return self._join(x, y), state

  def offer(
    self,
    x: Float[Array, "b t d"],
    state: Any,
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
  ) -> Mapping[str, Array]:
    """What the mixer offers to the layers after it, per token."""
    return self.mixer.offer(self._enter(x), state, reset=reset, lengths=lengths)

  def _enter(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    return self.norm(x) if self.norm_position == "pre" else x

  def _join(self, x: Float[Array, "*b d"], y: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    got, wanted = (y.dtype, y.shape), (x.dtype, x.shape)
    assert got == wanted, f"mixer {self.spec['name']!r} returned {got} for {wanted}"
    y = x + self.drop(y, deterministic=not self.has_rng("dropout"))
    y = y if self.norm_position == "pre" else self.norm(y)
    return nn.with_logical_constraint(y, ("batch", "time", "embed")[:: 1 if y.ndim == 3 else 2])
