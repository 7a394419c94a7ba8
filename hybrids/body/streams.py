"""The base class of bodies whose layers pass on several residual streams in place of one sum."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybrids import branch as branch_lib
from hybrids import mixer as mixer_lib
from hybrids.body.stack import Stack
from hybrids.layout import Layout
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one
from mistake import Mistake


class Streams(Mixer):
  """A stack of layers that read and write streams, which `spread` makes of x; its state is the stack's.

  A subclass has the fields `width`, of one stream, and `stack`, the number of `streams`, and the methods `connection`,
  which says what a letter of the stack becomes, and `joined`, which makes one vector of the streams.

  Raises:
    ValueError: when made, if a number is below 1, a letter has other fields, or the stack cannot be built.
  """

  # the path of the stack's variables among those of the body
  WITHIN = "layers/"
  # fields of a letter
  OWN: ClassVar[tuple[str, ...]] = ("mixer",)

  def __post_init__(self):
    self.stack = mixer_lib.frozen(self.stack)
    mixer_lib.check_fields(Stack, {"width": self.width, **self.stack}, f"{type(self).__name__}: stack")
    at_least_one(self, "streams")
    super().__post_init__()
    self.bare_stack()

  def connection(self, letter: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of the branch that a letter becomes; `fields` are those in OWN that the letter has."""
    raise TypeError(f"{type(self).__name__} defines no connection(letter, fields)")

  def joined(self, y: Float[Array, "*b e"]) -> Float[Array, "*b d"]:
    """Returns one vector made of the streams."""
    raise TypeError(f"{type(self).__name__} defines no joined(y)")

  @property
  def layout(self) -> Layout:
    """Returns the layout of the stack."""
    return self.bare_stack().layout

  @property
  def STATE(self) -> str:
    """Returns the STATE of the stack."""
    return self.bare_stack().STATE

  @property
  def SIDE(self) -> tuple[str, ...]:
    """Returns the names of the inputs per token that the stack reads."""
    return self.bare_stack().SIDE

  def setup(self):
    self.layers = self.bare_stack().copy(parent=self, name="layers")

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> tuple:
    return self.bare_stack().init_state(batch, max_len)

  @nn.nowrap
  def apart(self, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the variables with those of the stack's layers apart; see `Stack`."""
    return self._with_stack(variables, "apart")

  @nn.nowrap
  def together(self, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the inverse of `apart`."""
    return self._with_stack(variables, "together")

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    return self.joined(self.layers(self.spread(x), **where.masks, side=where.side))

  def mix(self, x: Float[Array, "b t d"], state: tuple, where: Where) -> tuple[Float[Array, "b t d"], tuple]:
    y, state = self.layers.prefill(self.spread(x), state, **where.masks, side=where.side)
    return self.joined(y), state

  def mix_token(
    self, x: Float[Array, "b d"], state: tuple, side: Mapping[str, Array]
  ) -> tuple[Float[Array, "b d"], tuple]:
    y, state = self.layers.step(self.spread(x), state, side=side)
    return self.joined(y), state

  @nn.nowrap
  def spread(self, x: Float[Array, "*b d"]) -> Float[Array, "*b e"]:
    """Returns the streams before the first layer, all of which are x."""
    return jnp.tile(x, self.streams)

  @nn.nowrap
  def bare_stack(self) -> Stack:
    """Returns the stack, without variables."""
    given = dict(self.stack)
    letters = {letter: self._letter(letter, section) for letter, section in given.pop("letters").items()}
    return Stack(**{"width": self.width * self.streams, "last_norm": False, **given, "letters": letters}, parent=None)

  @nn.nowrap
  def _letter(self, letter: str, section: Mapping[str, Any]) -> dict[str, Any]:
    fields = branch_lib.fields(section)
    if other := sorted(set(fields) - set(self.OWN)):
      raise Mistake(
        f"{type(self).__name__}: letter {letter!r} has {other}; a layer of several streams has {list(self.OWN)} alone"
      )
    return self.connection(letter, fields)

  @nn.nowrap
  def _with_stack(self, variables: Mapping[str, Any], method: str) -> dict[str, Any]:
    change = getattr(self.bare_stack(), method)
    own = change({name: tree["layers"] for name, tree in variables.items() if "layers" in tree})
    return {name: {**tree, "layers": own[name]} if name in own else tree for name, tree in variables.items()}
