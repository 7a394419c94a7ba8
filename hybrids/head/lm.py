"""The logits of tokens: of the next one, or of those that were masked."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybrids.head.head import Outputs
from hybrids.head.next_token import NextToken
from kernels.inputs import product
from layers import param
from layers.sizes import at_least_zero
from mistake import Mistake


class LanguageModel(NextToken, kw_only=True):
  """logits = softcap · tanh(scale · (E y + b) / softcap) of the next token.

  Attributes:
    tie: E is the embedding's table; otherwise a table of its own, which starts as N(0, std).
    bias: whether there is b, one number a token, which starts at 0.
    softcap: 0 for none (Gemma 2, Griffin: 30).
    scale: a fixed factor, as in muP and Granite.
    z_loss: coefficient of the mean of log(Σ exp(logits))², added to the objective as "losses/z" (PaLM: 1e-4).
    chunk: how many tokens have their logits in memory at once in a loss.
  Raises:
    ValueError: when made, if a value is out of its range; when called, if there is no table to share.
  """

  tie: bool = True
  bias: bool = False
  softcap: float = 0.0
  scale: float = 1.0
  z_loss: float = 0.0
  std: float = 0.02

  def __post_init__(self):
    at_least_zero(self, "softcap", "z_loss", "std")
    super().__post_init__()

  def setup(self):
    if not self.tie:
      init = nn.initializers.normal(self.std)
      self.table = param(self, "table", init, (self.vocab, self.width), ("vocab", "embed"))
    if self.bias:
      self.b = param(self, "b", nn.initializers.zeros, (self.vocab,), ("vocab",))

  def reader(self, outputs: Outputs) -> Callable[[Float[Array, "*b d"]], Float[Array, "*b v"]]:
    """Returns the function from outputs of the body to logits."""
    table = self._table(outputs)
    return lambda y: self.logits(y, table)

  def sow_more(self, squares: Float[Array, ""], total: Float[Array, ""]) -> None:
    """Sows the z loss."""
    if self.z_loss:
      self.sow("losses", "z", self.z_loss * squares / jnp.maximum(total, 1e-30))

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
    table = outputs.table
    if table is None or isinstance(table, tuple) or table.shape != (self.vocab, self.width):
      raise Mistake(
        "head.tie=True shares the table of tokens of the head's width, which this model lacks; set it false"
      )
    return table


class MaskedLanguageModel(LanguageModel, kw_only=True):
  """logits of the tokens that the task has masked, where the weights are above 0; the body may read both ways."""

  PREDICTS = False
