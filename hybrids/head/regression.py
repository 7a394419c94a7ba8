"""One or several numbers for a whole sequence."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybrids.head.classifier import Pool, Pooled
from hybrids.head.head import Outputs, Sums
from layers import Dense
from layers.choices import one_of
from mistake import Mistake

LOSSES = ("mse", "mae")


class Regression(Pool, kw_only=True):
  """`outputs` numbers a row: a linear map of its pooled outputs.

  Attributes:
    error: "mse" or "mae", the mean over rows and numbers of the squared or the absolute error; both are reported.
  """

  outputs: int = 1
  error: str = "mse"

  def __post_init__(self):
    one_of(self, error=LOSSES)
    if self.outputs < 1:
      raise Mistake(f"head.outputs={self.outputs}; it is at least 1")
    super().__post_init__()

  def setup(self):
    self.out_proj = Dense(self.outputs, use_bias=True, axes=("embed", None))

  def answer(self, outputs: Outputs, state: Pooled) -> tuple[Float[Array, "b o"], Pooled]:
    """Returns the predicted numbers of each row, and the next state."""
    value, state = self.pooled(outputs, state)
    return self.out_proj(value), state

  def score(self, answer: Float[Array, "b o"], targets: Float[Array, "b n"], weights: Float[Array, "b"]) -> Sums:
    """Returns the sums of both errors and of moments; a row of weight 0 reaches neither values nor gradients.

    Raises:
      ValueError: there are not as many answers as targets a row.
    """
    if answer.shape != targets.shape:
      raise Mistake(f"head.outputs={self.outputs}, but the targets have {targets.shape[-1]} numbers a row")
    weights = weights.astype(jnp.float32)
    wrong = jnp.where(weights[:, None] > 0, answer.astype(jnp.float32) - targets.astype(jnp.float32), 0.0)
    total = weights.sum()
    # enough for R², whose denominator is a variance over the whole set: `losses.add` moves squares to a common mean
    targets = jnp.where(weights[:, None] > 0, targets.astype(jnp.float32), 0.0)
    mean = (weights[:, None] * targets).sum(axis=0) / jnp.maximum(total, 1e-30)
    moments = jnp.stack([targets, jnp.square(targets - mean), jnp.square(wrong)])
    sums = {
      "moments": ((weights[:, None] * moments).sum(axis=1), total),
      "mse": ((weights * jnp.square(wrong).mean(axis=-1)).sum(), total),
      "mae": ((weights * jnp.abs(wrong).mean(axis=-1)).sum(), total),
    }
    return {"loss": sums[self.error], **sums}

  @nn.nowrap
  def example_targets(self, batch: int, length: int) -> Mapping[str, tuple[tuple[int, ...], Any]]:
    """Returns the shape and dtype of the targets and the weights of a batch."""
    return {"targets": ((batch, self.outputs), jnp.float32), "weights": ((batch,), jnp.float32)}
