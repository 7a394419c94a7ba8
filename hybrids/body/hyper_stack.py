"""A stack whose layers pass on several streams in place of one sum; its state is that of the stack."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Float

from hybrids import branch as branch_lib
from hybrids import mixer as mixer_lib
from hybrids.body.stack import Stack
from hybrids.layout import Layout
from layers.mixer import Mixer, Where
from layers.norms import make_norm
from layers.sizes import at_least_one
from mistake import Mistake

# the fields of a letter that a hyper-connection has, too
OWN = ("mixer", "norm")


class HyperStack(Mixer):
  """norm(mean_i x_i), with streams x_i that are all x before the first layer, and `hyper_connection`s as layers.

  Xie et al. 2025, arXiv:2512.24880 (mHC), as in `models/glm5_next` of transformers.

  Attributes:
    stack: fields of the `stack`; its letters are mixers, or their `mixer` and `norm`.
    norm: of letters that do not set one, and the last one.
    streams, iterations, eps, norm_eps: as in `hyper_connection`.
  Raises:
    ValueError: when made, if a number is below 1, a letter has other fields, or the stack cannot be built.
  """

  width: int
  stack: Mapping[str, Any]
  norm: Mapping[str, Any] = FrozenDict(name="rms")
  streams: int = 4
  iterations: int = 20
  eps: float = 1e-6
  norm_eps: float = 1e-5

  # the path of the stack's variables among those of the body
  WITHIN = "layers/"

  def __post_init__(self):
    self.stack, self.norm = mixer_lib.frozen(self.stack), mixer_lib.frozen(self.norm)
    at_least_one(self, "streams", "iterations")
    super().__post_init__()
    self._stack()

  @property
  def layout(self) -> Layout:
    """Returns the layout of the stack."""
    return self._stack().layout

  @property
  def STATE(self) -> str:
    """Returns the STATE of the stack."""
    return self._stack().STATE

  @property
  def SIDE(self) -> tuple[str, ...]:
    """Returns the names of the inputs per token that the stack reads."""
    return self._stack().SIDE

  def setup(self):
    self.layers = self._stack().copy(parent=self, name="layers")
    self.final_norm = make_norm(**self.norm)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> tuple:
    return self._stack().init_state(batch, max_len)

  @nn.nowrap
  def apart(self, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the variables with those of the stack's layers apart; see `Stack`."""
    return self._with_stack(variables, "apart")

  @nn.nowrap
  def together(self, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the inverse of `apart`."""
    return self._with_stack(variables, "together")

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    return self._joined(self.layers(self._streams(x), **where.masks, side=where.side))

  def mix(self, x: Float[Array, "b t d"], state: tuple, where: Where) -> tuple[Float[Array, "b t d"], tuple]:
    y, state = self.layers.prefill(self._streams(x), state, **where.masks, side=where.side)
    return self._joined(y), state

  def mix_token(
    self, x: Float[Array, "b d"], state: tuple, side: Mapping[str, Array]
  ) -> tuple[Float[Array, "b d"], tuple]:
    y, state = self.layers.step(self._streams(x), state, side=side)
    return self._joined(y), state

  @nn.nowrap
  def _streams(self, x: Float[Array, "*b d"]) -> Float[Array, "*b e"]:
    return jnp.tile(x, self.streams)

  def _joined(self, y: Float[Array, "*b e"]) -> Float[Array, "*b d"]:
    return self.final_norm(jnp.mean(y.reshape(*y.shape[:-1], self.streams, -1), axis=-2))

  @nn.nowrap
  def _stack(self) -> Stack:
    """Returns the stack, without variables."""
    given = dict(self.stack)
    letters = {letter: self._letter(letter, section) for letter, section in given.pop("letters", {}).items()}
    fields = {"width": self.width * self.streams, "last_norm": False, **given, "letters": letters}
    mixer_lib.check_fields(Stack, fields, "hyper_stack: stack")
    return Stack(**fields, parent=None)

  @nn.nowrap
  def _letter(self, letter: str, section: Mapping[str, Any]) -> dict[str, Any]:
    fields = branch_lib.fields(section)
    if other := sorted(set(fields) - set(OWN)):
      raise Mistake(f"hyper_stack: letter {letter!r} has {other}; a hyper-connection has {list(OWN)} alone")
    numbers = dict(streams=self.streams, iterations=self.iterations, eps=self.eps, norm_eps=self.norm_eps)
    mixer = dict(name="hyper_connection", **{"norm": self.norm, **fields}, **numbers)
    return dict(mixer=mixer, norm_position="none", skip=0.0)

  @nn.nowrap
  def _with_stack(self, variables: Mapping[str, Any], method: str) -> dict[str, Any]:
    own = getattr(self._stack(), method)({name: tree["layers"] for name, tree in variables.items() if "layers" in tree})
    return {name: {**tree, "layers": own[name]} if name in own else tree for name, tree in variables.items()}
