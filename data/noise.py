"""Random inputs with random labels, of any sizes: for counting and timing a model whose own data is not at hand.

There is nothing to learn: the loss stays at log(classes), or at log(size) where the next token is to be predicted.
"""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from data import draws
from data.generated import Sampled
from data.pipeline import Batch


@dataclasses.dataclass(frozen=True)
class Noise(Sampled):
  """Read uniform tokens or features; targets are a uniform label a row or the next token.

  Attributes:
    inputs: "tokens" or "features".
    size: of the vocabulary, or of one token's features.
    labels: classes of a row's label; 0 for predicting the next token.
  Raises:
    Mistake: a size is below 1, or features stand without labels.
  """

  batch: int = 8
  inputs: str = "tokens"
  size: int = 256
  labels: int = 0

  # said when a run starts training
  notice: ClassVar[str] = (
    "the data are noise (task 'noise'), of which nothing can be learned; a released model is trained on a task once "
    "`interop.hf load` has made a run of it with --config FILE.py, e.g. configs/copying.py:vocab=…"
  )
  # properties, as the fields decide them
  head: ClassVar[Any] = property(lambda self: "classifier" if self.labels else "lm")
  vocab: ClassVar[Any] = property(lambda self: self.size if self.inputs == "tokens" else None)  # type: ignore[misc]
  features: ClassVar[Any] = property(lambda self: self.size if self.inputs == "features" else None)
  classes: ClassVar[Any] = property(lambda self: self.labels or None)

  def __post_init__(self) -> None:
    self.require_sizes()
    self.require("inputs", self.inputs in ("tokens", "features"), "'tokens' or 'features'")
    self.require("length", self.length >= 1, "at least 1")
    self.require("size", self.size >= 1, "at least 1")
    least = int(self.inputs == "features")
    self.require("labels", self.labels >= least, f"at least {least}; features have no next token to predict")

  def sample(self, seed: int, stream: str, first: int, rows: int) -> Batch:
    """Returns `rows` rows of one stream."""
    width = self.size if self.inputs == "features" else 1
    u = draws.bits(seed, f"noise/{stream}", first, rows, (self.length + 1) * width)
    if self.inputs == "features":
      x = draws.unit(u[:, width:]).astype(np.float32).reshape(rows, self.length, width)
    else:
      x = draws.below(u[:, 1:], self.size).astype(np.int32)
    if self.labels:
      targets = draws.below(u[:, 0], self.labels).astype(np.int32)
      return {"inputs": x, "targets": targets, "weights": np.ones(rows, np.float32)}
    following = np.concatenate([x[:, 1:], draws.below(u[:, :1], self.size).astype(np.int32)], axis=1)
    return {"inputs": x, "targets": following, "weights": np.ones((rows, self.length), np.float32)}
