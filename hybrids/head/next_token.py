"""The base class of heads with a number for each token of the vocabulary: its answers, and sums for its loss."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hybrids.head.cross_entropy import by_chunks
from hybrids.head.head import Head, Outputs, Sums
from layers.lengths import last_of
from mistake import Mistake


class NextToken(Head, kw_only=True):
  """Answers and losses from `reader`, which a subclass has: the function from outputs of the body to logits.

  The loss is made by chunks of tokens: the logits of a whole batch are never in memory.

  Attributes:
    chunk: how many tokens have their logits in memory at once in a loss.
  Raises:
    ValueError: when made, if there is no vocabulary or a chunk of nothing.
  """

  vocab: int | None = None
  chunk: int = 2048

  PREDICTS = True
  EACH = True

  def __post_init__(self):
    if self.vocab is None:
      raise Mistake(f"head {type(self).__name__} predicts tokens, but the task has no vocab")
    if self.chunk < 1:
      raise Mistake(f"head.chunk={self.chunk}; it must be at least 1 token")
    super().__post_init__()

  def reader(self, outputs: Outputs) -> Callable[[Float[Array, "*b d"]], Float[Array, "*b v"]]:
    """Returns the function from outputs of the body to logits in float32."""
    raise TypeError(f"{type(self).__name__} defines no reader(outputs)")

  def answer(self, outputs: Outputs, state: Any) -> tuple[Float[Array, "b v"], Any]:
    """Returns the logits of the token after each row's last one; a row without tokens has those of a zero vector."""
    zero = jnp.zeros_like(outputs.y[:, 0])
    return self.reader(outputs)(last_of(outputs.y, zero, outputs.lengths)), state

  def each(self, outputs: Outputs) -> Float[Array, "b t v"]:
    """Returns the logits of the token after each token."""
    return self.reader(outputs)(outputs.y)

  def loss(
    self, outputs: Outputs, state: Any, targets: Int[Array, "b t"], weights: Float[Array, "b t"]
  ) -> tuple[Sums, Any]:
    """Returns the sums of the cross entropy and of the accuracy of all tokens, and the next state."""
    nats, hits, squares, total = by_chunks(self.reader(outputs), outputs.y, targets, weights, chunk=self.chunk)
    self.sow_more(squares, total)
    return {"loss": (nats, total), "accuracy": (hits, total)}, state

  def sow_more(self, squares: Float[Array, ""], total: Float[Array, ""]) -> None:
    """Sows losses of Σ w·log(Σ exp(logits))², a sum over tokens of weight `total`; none here."""
