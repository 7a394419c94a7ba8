"""The logits of tokens: of the next one, or of those that were masked."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hybrids.head.cross_entropy import by_chunks
from hybrids.head.head import Head, Outputs, Sums
from kernels.inputs import product
from layers import param
from layers.lengths import last_of
from mistake import Mistake


class LanguageModel(Head, kw_only=True):
  """logits = softcap · tanh(scale · (E y + b) / softcap) of the next token.

  The loss is made by chunks of tokens: the logits of a whole batch are never in memory.

  Attributes:
    tie: E is the embedding's table; otherwise a table of its own, which starts as N(0, std).
    bias: whether there is b, one number a token, which starts at 0.
    softcap: 0 for none (Gemma 2, Griffin: 30).
    scale: a fixed factor, as in muP and Granite.
    z_loss: coefficient of the mean of log(Σ exp(logits))², added to the objective as "losses/z" (PaLM: 1e-4).
    chunk: how many tokens have their logits in memory at once in a loss.
  Raises:
    ValueError: when made, if a value is out of its range or there is no table to share.
  """

  vocab: int | None = None
  tie: bool = True
  bias: bool = False
  softcap: float = 0.0
  scale: float = 1.0
  z_loss: float = 0.0
  std: float = 0.02
  chunk: int = 2048

  PREDICTS = True
  EACH = True

  def __post_init__(self):
    if self.vocab is None:
      raise Mistake(f"head {type(self).__name__} predicts tokens, but the task has no vocab")
    for name, value, fine, need in (
      ("softcap", self.softcap, self.softcap >= 0, "0 (off) or more"),
      ("z_loss", self.z_loss, self.z_loss >= 0, "0 (off) or more"),
      ("chunk", self.chunk, self.chunk >= 1, "at least 1 token"),
    ):
      if not fine:
        raise Mistake(f"head.{name}={value}; it must be {need}")
    super().__post_init__()

  def setup(self):
    if not self.tie:
      init = nn.initializers.normal(self.std)
      self.table = param(self, "table", init, (self.vocab, self.width), ("vocab", "embed"))
    if self.bias:
      self.b = param(self, "b", nn.initializers.zeros, (self.vocab,), ("vocab",))

  def answer(self, outputs: Outputs, state: Any) -> tuple[Float[Array, "b v"], Any]:
    """Returns the logits of the token after each row's last one; a row without tokens has those of a zero vector."""
    zero = jnp.zeros_like(outputs.y[:, 0])
    return self.logits(last_of(outputs.y, zero, outputs.lengths), self._table(outputs)), state

  def each(self, outputs: Outputs) -> Float[Array, "b t v"]:
    """Returns the logits of the token after each token."""
    return self.logits(outputs.y, self._table(outputs))

  def loss(
    self, outputs: Outputs, state: Any, targets: Int[Array, "b t"], weights: Float[Array, "b t"]
  ) -> tuple[Sums, Any]:
    """Returns the sums of the cross entropy and of the accuracy of all tokens, and the next state."""
    table = self._table(outputs)
    logits = lambda y: self.logits(y, table)
    nats, hits, squares, total = by_chunks(logits, outputs.y, targets, weights, chunk=self.chunk)
    if self.z_loss:
      self.sow("losses", "z", self.z_loss * squares / jnp.maximum(total, 1e-30))
    return {"loss": (nats, total), "accuracy": (hits, total)}, state

  @nn.nowrap
  def logits(self, y: Float[Array, "*b d"], table: Float[Array, "v d"]) -> Float[Array, "*b v"]:
    """Returns the logits in float32, whatever the dtype of the model."""
    logits = product("...d,vd->...v", y, table.astype(y.dtype), jnp.float32)
    logits = logits + self.b if self.bias else logits
    logits = logits if self.scale == 1 else logits * self.scale
    return self.softcap * jnp.tanh(logits / self.softcap) if self.softcap else logits

  def _table(self, outputs: Outputs) -> Float[Array, "v d"]:
    if not self.tie:
      return self.table
    if outputs.table is None or outputs.table.shape != (self.vocab, self.width):
      raise Mistake(
        "head.tie=True shares the table of tokens of the head's width, which this model lacks; set it false"
      )
    return outputs.table


class MaskedLanguageModel(LanguageModel, kw_only=True):
  """logits of the tokens that the task has masked, where the weights are above 0; the body may read both ways."""

  PREDICTS = False
