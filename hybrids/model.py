"""What all models have in common: an embedding, a stack of mixers, a last norm, and the state of all that."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hybrids import mixer as mixer_lib
from hybrids.embed import Embed
from hybrids.stack import Stack
from layers import make_norm


class ModelState(NamedTuple):
  """What a model must remember between two calls."""

  position: Int[Array, "b"]  # of the next token, in its document
  layers: tuple  # one state a layer, batch first in every leaf


class Model(nn.Module, kw_only=True):
  """norm(stack(embed(inputs))), without the last norm if norms stand after the layers already. Heads build on it.

  A head adds `vocab`, `features` or both, and what else it needs.

  Attributes:
    max_len: rows of the table of learned positions, and what a state that grows should have room for.
    dtype: "float32" or "bfloat16", cast once, after the embedding.
  For the rest see Stack and Embed.
  Raises:
    ValueError: when made, if a field does not fit.
  """

  width: int
  depth: int
  pattern: str
  mixers: Mapping[str, Mapping[str, Any]]
  norm: str = "rms"
  norm_position: str = "pre"
  position: str = "none"
  max_len: int = 4096
  embed_std: float = 0.02
  dropout: float = 0.0
  remat: str = "none"
  unroll: int = 1
  dtype: str = "float32"
  learn_state: bool = False

  def __post_init__(self):
    self.mixers = mixer_lib.frozen(self.mixers)
    super().__post_init__()
    self._embed(parent=None)
    self._stack(parent=None)

  @property
  def STATE(self) -> str:
    """The stack's."""
    return self._stack(parent=None).STATE

  @property
  def SLOW(self) -> tuple[str, ...]:
    """The stack's."""
    return self._stack(parent=None).SLOW

  @nn.nowrap
  def apart(self, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The model's variables with those of its layers apart, for loops over `step`; see Stack."""
    stacks = {collection: tree["stack"] for collection, tree in variables.items() if "stack" in tree}
    own = self._stack(parent=None).apart(stacks)
    return {name: {**tree, "stack": own[name]} if name in own else tree for name, tree in variables.items()}

  def setup(self):
    self.embed = self._embed()
    self.stack = self._stack()
    if self.norm_position == "pre":
      self.final_norm = make_norm(self.norm)

  @nn.nowrap
  def _embed(self, **kwargs) -> Embed:
    return Embed(**self._fields_of(Embed), **kwargs)

  @nn.nowrap
  def _stack(self, **kwargs) -> Stack:
    return Stack(**self._fields_of(Stack), **kwargs)

  @nn.nowrap
  def _fields_of(self, part: type[nn.Module]) -> dict[str, Any]:
    """A part is told what it shares with the model."""
    return {name: getattr(self, name) for name in mixer_lib.fields(part) if hasattr(self, name)}

  def _encode(
    self, inputs: Array, *, reset: Bool[Array, "b t"] | None, lengths: Int[Array, "b"] | None
  ) -> Float[Array, "b t d"]:
    """What the head sees, from the start."""
    x, _ = self.embed(inputs, jnp.zeros(inputs.shape[:1], jnp.int32), reset=reset, lengths=lengths)
    return self._last_norm(self.stack(x, reset=reset, lengths=lengths))

  def _last_norm(self, y: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    return self.final_norm(y) if self.norm_position == "pre" else y
