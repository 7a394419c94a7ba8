"""One label for a whole sequence, read in parallel or as it comes in."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hybrids.head.cross_entropy import cross_entropy
from hybrids.head.head import Head, Outputs, Sums
from layers import Dense
from layers.activations import some
from layers.choices import one_of
from layers.event_pool import time_weights
from layers.lengths import blank_past
from layers.sizes import at_least_one
from mistake import Mistake

POOLS = ("mean", "last", "cls", "time")
COUNTS = ("none", "classes")
ACTIVATIONS = some("relu", "gelu", "gelu_tanh", "silu")
# equal parts of the scores 0 … 1, within which the area under the curve takes scores for equal
BINS = 1024


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
  """Logits of one label a row: a linear map W u + b of its pooled outputs u, whatever documents they are from.

  With `inner`, W_2 f(W_1 u + b_1) + b_2, as the Transformers of the Long Range Arena have it (Tay et al. 2020,
  arXiv:2011.04006).

  Attributes:
    inner: features between the maps; none for one map.
    activation: f, a name of `ACTIVATIONS`.
    counts: what is counted beside the accuracy: "none", or "classes" for the F1 score and the area under the curve of
      two classes. That is classes² + 2 · BINS numbers a batch.
  """

  classes: int | None = None
  counts: str = "none"
  inner: int | None = None
  activation: str = "relu"

  def __post_init__(self):
    one_of(self, counts=COUNTS, activation=ACTIVATIONS)
    if self.classes is None:
      raise Mistake(f"head {type(self).__name__} chooses among classes, but the task has none; use another head.name")
    if self.classes < 1:
      raise Mistake(f"classes={self.classes}; a {type(self).__name__} needs at least 1")
    at_least_one(self, "inner")
    super().__post_init__()

  def setup(self):
    if self.inner is not None:
      self.in_proj = Dense(self.inner, use_bias=True, axes=("embed", "mlp"))
    self.out_proj = Dense(self.classes, use_bias=True, axes=("embed" if self.inner is None else "mlp", None))

  def answer(self, outputs: Outputs, state: Pooled) -> tuple[Float[Array, "b c"], Pooled]:
    """Returns the logits of each row's label, and the next state."""
    value, state = self.pooled(outputs, state)
    if self.inner is not None:
      value = ACTIVATIONS[self.activation](self.in_proj(value))
    return self.out_proj(value), state

  def score(self, answer: Float[Array, "b c"], targets: Int[Array, "b"], weights: Float[Array, "b"]) -> Sums:
    """Returns the sums of the cross entropy and of the accuracy, and of the counts."""
    sums = cross_entropy(answer, targets, weights)
    return sums if self.counts == "none" else {**sums, **class_counts(answer, targets, weights)}


def class_counts(logits: Float[Array, "b c"], targets: Int[Array, "b"], weights: Float[Array, "b"]) -> Sums:
  """Returns weighted counts: "confusion" by label and prediction, and "scores" of the last class by label and bin."""
  classes, weights = logits.shape[1], weights.astype(jnp.float32)
  logits = jnp.where(weights[:, None] > 0, logits.astype(jnp.float32), 0.0)
  confusion = jnp.zeros((classes, classes)).at[targets, jnp.argmax(logits, axis=-1)].add(weights)
  place = jnp.minimum((nn.softmax(logits)[:, -1] * BINS).astype(jnp.int32), BINS - 1)
  scores = jnp.zeros((2, BINS)).at[(targets == classes - 1).astype(jnp.int32), place].add(weights)
  return {"confusion": (confusion, weights.sum()), "scores": (scores, weights.sum())}
