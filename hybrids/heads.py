"""Whole models: the head that a task names, on top of embedding and stack.

A LanguageModel(vocab=256, width=64, depth=4, pattern="m-", position="learned", tie=False, …) has the parameters

  embed/embedding                        (256, 64)
  embed/positions                        (4096, 64)
  stack/groups/0_mamba/norm/scale        (2, 64)        see hybrids/stack.py
  stack/groups/0_mamba/mixer/…
  stack/groups/1_mlp/…
  final_norm/scale                       (64,)
  head                                   (256, 64)      not with tie=True
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hybrids import mixer as mixer_lib
from hybrids.classifier import Classifier
from hybrids.model import Model, ModelState
from kernels.inputs import product
from layers import param
from mistake import Mistake


class LanguageModel(Model, kw_only=True):
  """Logits of the next token. `prefill` is the definition, as for mixers, where the stack has a state.

  Attributes:
    vocab: number of tokens.
    tie: the logits are products with the embedding; otherwise with a table of their own, which starts as N(0, 0.02).
  """

  vocab: int
  tie: bool = True

  def setup(self):
    super().setup()
    if not self.tie:
      self.head = param(self, "head", nn.initializers.normal(0.02), (self.vocab, self.width), ("vocab", "embed"))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> ModelState:
    """Before any token, not learned; see `start`."""
    return ModelState(jnp.zeros((batch,), jnp.int32), self._stack(parent=None).init_state(batch, max_len))

  def start(self, batch: int, max_len: int) -> ModelState:
    """`init_state`, with what is learned in its place."""
    return ModelState(jnp.zeros((batch,), jnp.int32), self.stack.start(batch, max_len))

  def __call__(
    self,
    inputs: Int[Array, "b t"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
  ) -> Float[Array, "b t v"]:
    """All logits, from `start`; past `lengths` they are finite and mean nothing."""
    return self._logits(self._encode(inputs, reset=reset, lengths=lengths))

  def prefill(
    self,
    inputs: Int[Array, "b t"],
    state: ModelState,
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
  ) -> tuple[Float[Array, "b t v"], ModelState]:
    """All logits, going on from `state`, and the state after each row's last token."""
    x, position = self.embed(inputs, state.position, reset=reset, lengths=lengths)
    y, layers = self.stack.prefill(x, state.layers, reset=reset, lengths=lengths)
    return self._logits(self._last_norm(y)), ModelState(position, layers)

  def step(self, token: Int[Array, "b"], state: ModelState) -> tuple[Float[Array, "b v"], ModelState]:
    """One token."""
    x, position = self.embed.step(token, state.position)
    y, layers = self.stack.step(x, state.layers)
    return self._logits(self._last_norm(y)), ModelState(position, layers)

  def _logits(self, y: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
    """In float32, whatever the dtype of the model."""
    table = self.embed.embedding if self.tie else self.head
    return product("...d,vd->...v", y, table.astype(y.dtype), jnp.float32)


HEADS: dict[str, type[Model]] = {"lm": LanguageModel, "classifier": Classifier}


def build_model(task: Any, **section: Any) -> Model:
  """The model for a task: the head it names (`task.head`), with its sizes, and the fields of a config's model section.

  Everything that can be known without data is checked here.

  Args:
    task: has `head`, `vocab`, `features` and `classes`.

  Raises:
    ValueError: the head or a field is unknown, or a field does not fit.
  """
  if task.head not in HEADS:
    raise Mistake(f"no head {task.head!r}; choose from {sorted(HEADS)}")
  cls = HEADS[task.head]
  sizes = [name for name in ("vocab", "features", "classes") if name in mixer_lib.fields(cls)]
  given: dict[str, Any] = {**section, **{name: getattr(task, name) for name in sizes}}
  mixer_lib.check_fields(cls, given, f"the {task.head!r} model")
  model = cls(**given)
  shape = ((1, 1), jnp.int32) if task.vocab else ((1, 1, task.features), jnp.float32)
  # what mixers check about their own fields is raised when they are set up
  jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(*shape))
  return model
