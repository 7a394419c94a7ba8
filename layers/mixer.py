"""The base class of every sequence and channel mixer: a mixer writes its mathematics, the base class its contract.

A mixer turns "b t d" into "b t d" in three modes that are one function: `__call__` reads whole sequences, `prefill`
goes on from a state and returns the next one, `step` reads one token. So it can be stopped and resumed anywhere.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, TypedDict

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.inputs import Lengths, Reset, valid
from layers.lengths import blank_past
from mistake import Mistake

STATES = ("fixed", "window", "grows", "whole input", "none")


class Masks(TypedDict):
  """The keyword arguments by which ops and layers take packed documents and padding."""

  reset: Reset
  lengths: Lengths


class Where(NamedTuple):
  """Where the tokens of one call stand: the documents packed into its rows, the padding, and inputs beside each token.

  Attributes:
    reset: True at the first token of a document, never in the padding; None where no document starts.
    lengths: tokens of each right-padded row, 0 to t; None where no row is padded.
    side: the optional inputs of each token that the mixer names in SIDE, as far as the caller has them; 0 in the
      padding.
  """

  reset: Reset = None
  lengths: Lengths = None
  side: Mapping[str, Array] = {}

  @property
  def masks(self) -> Masks:
    """Returns `reset` and `lengths` as keyword arguments of ops and layers."""
    return {"reset": self.reset, "lengths": self.lengths}


class Mixer(nn.Module):
  """A mixer's public methods, written once; `prefill` defines it, and the other two are special cases of it.

  A subclass has a field `width`, `setup`, `init_state` and `mix(x, state, where) -> (y, state)`. It may write
  `mix_parallel` or `mix_token` as well where that is faster; the contract suite holds them to `mix`. A mixer that reads
  the whole sequence at once (STATE "none") writes `mix_parallel` alone. The base class checks shapes, and sets x to 0
  in the padding before the mixer sees it (so that a NaN there reaches neither outputs nor gradients) and y after it.
  A mixer or a body that ends at another width than it begins with has a property `out_width`; a layer of a stack does
  not; and a body that reads padded rows and ends with fewer tokens than it begins with has `ends(gaps, lengths)`, which
  returns those of its outputs.

  Attributes (not annotated as fields, which Linen would make of them; they may be properties):
    STATE: how the state grows: "fixed"; "window", with at most a constant number of tokens; "grows", with every token
      up to `max_len`; "whole input", a buffer of `max_len` inputs; "none", there is no state, and `__call__` is all.
    SIDE: names of the optional inputs beside each token that it reads.
    CARRIES: name -> width of those among them that a stack hands from layer to layer: 0 before the first one, then what
      the mixer stored by `put_variable("carried", name, ...)` in the last layer that did.
  A mixer with fields `layer` (counted from 0) and `depth`, both with defaults, is told its place in the stack. `layer`
  is for initialisers only: in a scanned stack one program runs every layer.
  A mixer may have `offer(x, state, *, reset, lengths) -> Mapping[str, "b t ..."]`, called with the arguments of
  `prefill`; the stack adds these arrays to `side` for the layers after it, and the first offer of a name stands. A
  wrapper says by a property OFFERS whether the mixer in it has any.
  """

  STATE = "fixed"
  SIDE: ClassVar[tuple[str, ...]] = ()
  CARRIES: ClassVar[Mapping[str, int]] = {}

  def __post_init__(self):
    self.check()
    super().__post_init__()

  @nn.nowrap
  def check(self) -> None:
    """Refuses fields whose values make no mixer, when it is built; a subclass that has such fields overrides it.

    Raises:
      ValueError: a size is below 1 or does not divide what it must, a number is out of its range, or a name is unknown.
    """

  def mix(self, x: Float[Array, "b t d"], state: Any, where: Where) -> tuple[Float[Array, "b t e"], Any]:
    """Returns all outputs, continuing from `state`, and the state after each row's last token."""
    raise TypeError(f"{type(self).__name__} defines no mix(x, state, where)")

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t e"]:
    """Returns all outputs from an empty state, without the next state."""
    return self.mix(x, self.init_state(*x.shape[:2]), where)[0]

  def mix_token(self, x: Float[Array, "b d"], state: Any, side: Mapping[str, Array]) -> tuple[Float[Array, "b e"], Any]:
    """Reads one token; ops and layers have a form of their own for a single token without resets or padding."""
    y, state = self.mix(x[:, None], state, Where(side={name: value[:, None] for name, value in side.items()}))
    return y[:, 0], state

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> Any:
    """Returns the state before any token: a NamedTuple, the batch first in every leaf. It needs no parameters.

    Raises:
      ValueError: the mixer has no state.
    """
    self._require_state()
    raise TypeError(f"{type(self).__name__} defines no init_state(batch, max_len)")

  @nn.nowrap
  def no_state(self) -> str:
    """Says why there is no state where STATE is "none"; a mixer names the field that makes it so, and the way out."""
    return "it reads the whole sequence at once, so it has no state, prefill or step"

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Reset = None,
    lengths: Lengths = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b t e"]:
    """Returns all outputs from an empty state; 0 in the padding.

    Args:
      reset: True at the first token of each packed document.
      lengths: tokens of each right-padded row.
      side: optional inputs beside each token, by the names in SIDE.
    """
    x, where = self._enter(x, reset, lengths, side)
    if self._has_no_rows(x):
      return self._no_outputs(x)
    return blank_past(self.mix_parallel(x, where), where.lengths)

  def prefill(
    self,
    x: Float[Array, "b t d"],
    state: Any,
    *,
    reset: Reset = None,
    lengths: Lengths = None,
    side: Mapping[str, Array] | None = None,
  ) -> tuple[Float[Array, "b t e"], Any]:
    """Returns all outputs, continuing from `state`, and the state after each row's last token."""
    self._require_state()
    x, where = self._enter(x, reset, lengths, side)
    if self._has_no_rows(x):
      return self._no_outputs(x), state
    y, state = self.mix(x, state, where)
    return blank_past(y, where.lengths), state

  def step(
    self, x: Float[Array, "b d"], state: Any, *, side: Mapping[str, Array] | None = None
  ) -> tuple[Float[Array, "b e"], Any]:
    """Reads one token, and returns its output and the next state."""
    self._require_state()
    self._check(x, 2, side)
    if self._has_no_rows(x):
      return self._no_outputs(x), state
    return self.mix_token(x, state, side or {})

  @nn.nowrap
  def _has_no_rows(self, x: Array) -> bool:
    """Returns whether a batch is empty: no size can be told from the shape of an empty array, as mixers do."""
    return x.shape[0] == 0 and not self.is_initializing() and not self.CARRIES

  @nn.nowrap
  def _no_outputs(self, x: Array) -> Array:
    return jnp.zeros((*x.shape[:-1], getattr(self, "out_width", self.width)), x.dtype)

  @nn.nowrap
  def _enter(self, x: Array, reset: Array | None, lengths: Array | None, side: Any) -> tuple[Array, Where]:
    """Returns x with zeros in the padding, and the masks and side inputs of its tokens."""
    self._check(x, 3, side)
    side = dict(side or {})
    if lengths is not None:
      lengths = jnp.clip(lengths, 0, x.shape[1]).astype(jnp.int32)
      reset = None if reset is None else reset & valid(lengths, x.shape[1])
      side = {name: blank_past(value, lengths) for name, value in side.items()}
    return blank_past(x, lengths), Where(reset, lengths, side)

  @nn.nowrap
  def _check(self, x: Array, axes: int, side: Mapping[str, Array] | None) -> None:
    name = type(self).__name__
    if x.ndim != axes or x.shape[-1] != self.width:
      shape = "(batch, time, width)" if axes == 3 else "(batch, width)"
      raise Mistake(f"{name}: x has shape {x.shape}; it must be {shape} with width={self.width}")
    unknown = sorted(set(side or ()) - set(self.SIDE))
    if unknown:
      raise Mistake(f"{name}: side has {unknown}; it reads {list(self.SIDE)}")

  @nn.nowrap
  def _require_state(self) -> None:
    if self.STATE == "none":
      raise Mistake(f"{type(self).__name__}: {self.no_state()}")


class Stateless(NamedTuple):
  """The state of a mixer that remembers nothing."""


class PerToken(Mixer):
  """A mixer that sees one token at a time, as perceptrons do; a subclass has `mix_channels` in place of `mix`."""

  def mix_channels(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Returns the outputs of tokens, each computed from its own input alone."""
    raise TypeError(f"{type(self).__name__} defines no mix_channels(x)")

  def mix(self, x: Float[Array, "b t d"], state: Stateless, where: Where) -> tuple[Float[Array, "b t d"], Stateless]:
    return self.mix_channels(x), state

  def mix_token(
    self, x: Float[Array, "b d"], state: Stateless, side: Mapping[str, Array]
  ) -> tuple[Float[Array, "b d"], Stateless]:
    return self.mix_channels(x), state

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> Stateless:
    return Stateless()
