"""One label for a whole sequence, read in parallel or as it comes in."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hybrids.head.cross_entropy import cross_entropy
from hybrids.head.head import Head, Outputs, Sums
from layers import Dense
from layers.event_pool import time_weights
from layers.lengths import blank_past
from mistake import Mistake

POOLS = ("mean", "last", "cls", "time")


class Pooled(NamedTuple):
  """The pooled outputs of each row so far, from which its label is predicted."""

  value: Float[Array, "b d"]  # float32; the weighted sum of all outputs with "mean" and "time", else the last one
  weight: Float[Array, "b"]  # float32; of all tokens so far


class Pool(Head, kw_only=True):
  """One vector for each row; the base class of heads with one answer a row.

  Attributes:
    pool: the "mean" of the outputs, the "last" one, or "cls": the output at the class token, see `embed.class_token`.
      Or "time", as in Event-SSM: the mean weighted by the gap before each token, 1 if not given. A row without tokens
      has the vector 0.
  Raises:
    ValueError: when made, if `pool` is unknown.
  """

  pool: str = "mean"

  def __post_init__(self):
    if self.pool not in POOLS:
      raise Mistake(f"no pool {self.pool!r}; choose from {list(POOLS)}")
    super().__post_init__()

  @nn.nowrap
  def init_state(self, rows: int) -> Pooled:
    """Returns the pooled vectors of rows without tokens, which are 0."""
    return Pooled(jnp.zeros((rows, self.width)), jnp.zeros((rows,)))

  @nn.nowrap
  def pooled(self, outputs: Outputs, state: Pooled) -> tuple[Float[Array, "b d"], Pooled]:
    """Returns the pooled vector of each row, and the state after these outputs."""
    y = blank_past(outputs.y.astype(jnp.float32), outputs.lengths)
    if self.pool in ("mean", "time"):
      gaps = outputs.gaps if self.pool == "time" else None
      weights = jnp.ones(y.shape[:2]) if gaps is None else time_weights(gaps).astype(jnp.float32)
      weights = blank_past(weights, outputs.lengths)
      total = state.weight + jnp.sum(weights, axis=1)
      value = state.value + jnp.sum(weights[..., None] * y, axis=1)
      return value / jnp.where(total > 0, total, 1)[:, None], Pooled(value, total)
    if self.pool == "cls":
      assert outputs.place is not None, "the model checks that there is a class token"
      place, known = outputs.place, jnp.ones_like(outputs.lengths, bool)
    else:
      place, known = jnp.maximum(outputs.lengths - 1, 0), outputs.lengths > 0
    last = jnp.take_along_axis(y, place[:, None, None], axis=1)[:, 0]
    value = jnp.where(known[:, None], last, state.value)
    return value, state._replace(value=value)


class Classifier(Pool, kw_only=True):
  """Logits of one label a row: a linear map of its pooled outputs, whatever documents they are from."""

  classes: int | None = None

  def __post_init__(self):
    if self.classes is None or self.classes < 1:
      raise Mistake(f"classes={self.classes}; a {type(self).__name__} needs at least 1")
    super().__post_init__()

  def setup(self):
    self.out_proj = Dense(self.classes, use_bias=True, axes=("embed", None))

  def answer(self, outputs: Outputs, state: Pooled) -> tuple[Float[Array, "b c"], Pooled]:
    """Returns the logits of each row's label, and the next state."""
    value, state = self.pooled(outputs, state)
    return self.out_proj(value), state

  def score(self, answer: Float[Array, "b c"], targets: Int[Array, "b"], weights: Float[Array, "b"]) -> Sums:
    """Returns the sums of the cross entropy and of the accuracy."""
    return cross_entropy(answer, targets, weights)
