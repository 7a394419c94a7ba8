"""The base class of heads: a head turns the outputs of a body into answers, and computes their losses."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hybrids.embed.adaptive import Cluster
from kernels.inputs import Reset
from mistake import Mistake

# name of a loss or a metric -> (weighted sum, sum of weights)
Sums = dict[str, tuple[Array, Array]]


class Outputs(NamedTuple):
  """The outputs of a body, as heads read them.

  Attributes:
    lengths: how many of each row's outputs there are.
    gaps: the time before each token, if the batch has it.
    place: where the output of the class token stands, if there is one.
    table: the embedding's, for heads that share it; of the embedding "adaptive", that of each cluster.
    reset: True at the first token of each packed document, if there are any.
  """

  y: Float[Array, "b t d"]
  lengths: Int[Array, "b"]
  gaps: Float[Array, "b t"] | None = None
  place: Int[Array, "b"] | None = None
  table: Float[Array, "v d"] | tuple[Cluster, ...] | None = None
  reset: Reset = None


class Head(nn.Module, kw_only=True):
  """The base class of heads: a subclass has `answer`, `score` and, with one answer a token, `each`.

  Attributes (of the class):
    PREDICTS: whether it predicts what the body is about to read, so that the body must not see it.
    DOCUMENTS: how many documents one answer is about.
    EACH: whether there is an answer a token, or one a row.
    FROM_TASK: fields that the task or the model gives, and not a config.
  """

  width: int

  PREDICTS = False
  DOCUMENTS = 1
  EACH = False
  FROM_TASK: ClassVar[tuple[str, ...]] = ("width", "vocab", "features", "classes")

  @nn.nowrap
  def init_state(self, rows: int) -> Any:
    """Returns the head's state before any token."""
    return ()

  def answer(self, outputs: Outputs, state: Any) -> tuple[Array, Any]:
    """Returns the answer for each row after all tokens so far, and the head's next state."""
    raise TypeError(f"{type(self).__name__} defines no answer(outputs, state)")

  def each(self, outputs: Outputs) -> Array:
    """Returns the answers for all tokens.

    Raises:
      ValueError: the head has one answer a row.
    """
    raise Mistake(f"{type(self).__name__} has one answer a row, not one a token")

  def loss(self, outputs: Outputs, state: Any, targets: Array, weights: Array) -> tuple[Sums, Any]:
    """Returns sums over the batch, "loss" among them, and the head's next state; sums of batches add up."""
    answer, state = self.answer(outputs, state)
    return self.score(answer, targets, weights), state

  def score(self, answer: Array, targets: Array, weights: Array) -> Sums:
    """Returns the sums of the losses of these answers, by name."""
    raise TypeError(f"{type(self).__name__} defines no score(answer, targets, weights)")

  @nn.nowrap
  def example_targets(self, batch: int, length: int) -> Mapping[str, tuple[tuple[int, ...], Any]]:
    """Returns the shape and dtype of the targets and the weights of a batch."""
    shape = (batch, length) if self.EACH else (batch,)
    return {"targets": (shape, jnp.int32), "weights": (shape, jnp.float32)}
