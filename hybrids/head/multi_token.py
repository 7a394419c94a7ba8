"""A language model that is also trained to predict the token after the next one."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hybrids import mixer as mixer_lib
from hybrids.head.cross_entropy import by_chunks
from hybrids.head.head import Outputs, Sums
from hybrids.head.lm import LanguageModel
from layers import Dense, RMSNorm
from layers.sizes import at_least_zero
from mistake import Mistake


class MultiToken(LanguageModel, kw_only=True):
  """The head "lm", and in training a prediction of the token after the next by a block B of its own.

  logits = softcap · tanh(scale · E B(W [norm(y_t); norm(e_{t+1})]) / softcap), with e the embedding's table

  DeepSeek-AI 2024, arXiv:2412.19437, sec. 2.2, with one module. Its loss, the mean over the tokens whose next one is of
  the same document, is sown under "losses" as `ahead`, times `weight`. Generation does not use the block.
  Departs: y is the body's output after its last norm; B, a `stack`, ends with a norm of its own.

  Attributes:
    block: the `name` and fields of B, which has the model's width.
    weight: coefficient of its loss (DeepSeek-V3: 0.3, later 0.1).
    norm_eps: the epsilon of both norms.
  Raises:
    ValueError: as "lm"; or the block cannot be built, or a number is below 0.
  """

  block: Mapping[str, Any]
  weight: float = 0.3
  norm_eps: float = 1e-6

  def __post_init__(self):
    self.block = mixer_lib.frozen(self.block)
    at_least_zero(self, "weight", "norm_eps")
    super().__post_init__()
    self._block(parent=None)

  def setup(self):
    super().setup()
    self.y_norm, self.e_norm = RMSNorm(eps=self.norm_eps), RMSNorm(eps=self.norm_eps)
    self.in_proj = Dense(self.width, axes=("inner", "embed"))
    self.inner = self._block(parent=None).copy(parent=self, name="block")

  def each(self, outputs: Outputs) -> Float[Array, "b t v"]:
    """Returns the logits of the token after each token."""
    if self.is_initializing():
      self._ahead(outputs, jnp.zeros(outputs.y.shape[:2], jnp.int32))
    return super().each(outputs)

  def loss(
    self, outputs: Outputs, state: Any, targets: Int[Array, "b t"], weights: Float[Array, "b t"]
  ) -> tuple[Sums, Any]:
    """Returns what the head "lm" does, and sows the loss of the tokens after the next ones."""
    sums, state = super().loss(outputs, state, targets, weights)
    z = self._ahead(outputs, targets)
    counts = weights[:, 1:] * (weights[:, :-1] > 0)
    if outputs.reset is not None:
      counts = jnp.where(outputs.reset[:, 1:], 0, counts)
    nats, _, _, total = by_chunks(self.reader(outputs), z[:, :-1], targets[:, 1:], counts, chunk=self.chunk)
    self.sow("losses", "ahead", self.weight * nats / jnp.maximum(total, 1e-30))
    return sums, state

  def _ahead(self, outputs: Outputs, following: Int[Array, "b t"]) -> Float[Array, "b t d"]:
    """Returns what the block makes of each output and of the embedding of the token that follows."""
    table = outputs.table
    if table is None or isinstance(table, tuple) or table.shape[-1] != self.width:
      raise Mistake("head 'multi_token' reads the embedding's table of tokens of the head's width; this model has none")
    e = jnp.take(table, following, axis=0).astype(outputs.y.dtype)
    both = jnp.concatenate([self.y_norm(outputs.y), self.e_norm(e)], axis=-1)
    return self.inner(self.in_proj(both), reset=outputs.reset, lengths=outputs.lengths)

  @nn.nowrap
  def _block(self, **kwargs: Any) -> nn.Module:
    return mixer_lib.build_spec(self.block, width=self.width, layer=0, depth=1, **kwargs)
