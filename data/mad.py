"""MAD: six small problems that probe what a mixer can do (Poli et al. 2024, arXiv:2403.17844; mad-lab).

* in_context_recall: keys, each followed by its value in this row; what follows a key that was there before is asked.
* noisy_in_context_recall: the same with pairs of noise among them.
* fuzzy_in_context_recall: the same with keys and values of 1 … 3 tokens, keys of 3 in evaluation; padding in front.
* memorization: the value of a key, the same in all rows, is asked at the token after it.
* compression: a row of random tokens is written again from the model's output at its last token.
* selective_copying: tokens among blanks are given back in order, at the blanks after the copy token.

The recall problems train on every next token, as there, and are evaluated on the values alone. The protocol is 12,800
rows (memorization 256), batches of 128, 200 epochs, width 128, a mixer, an MLP, a mixer, an MLP.

Departs: the last key of a row of recall is uniform among the different keys before it in the fuzzy problem, too, where
theirs is drawn first and then put somewhere. Ids of tokens are in the order of data/mad_rows.py.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from data import draws, mad_rows, pipeline
from data.generated import EVAL_SEED, Generated, whole
from data.pipeline import Batch

RECALL = ("in_context_recall", "noisy_in_context_recall", "fuzzy_in_context_recall")
# vocabulary, length and training rows of the baselines
BASELINES = {
  "in_context_recall": (16, 128, 12800),
  "noisy_in_context_recall": (32, 128, 12800),
  "fuzzy_in_context_recall": (16, 128, 12800),
  "memorization": (256, 32, 256),
  "compression": (16, 32, 12800),
  "selective_copying": (16, 256, 12800),
}


@dataclasses.dataclass(frozen=True)
class MAD(Generated):
  """Solve one of MAD's problems, at the baseline's sizes where they are 0.

  Attributes:
    train_rows: rows of the training set, in a new order each epoch; 0 for the baseline's, -1 for new rows for ever.
    noise: share of the pairs that are noise in noisy_in_context_recall (published: 0.2 … 0.8).
    tokens: how many there are to copy in selective_copying (published: 16 … 96).
  Raises:
    Mistake: there is no such problem, or a size does not fit it.
  """

  batch: int = 128
  length: int = 0
  vocab: int = 0
  eval_rows: int = 1280
  problem: str = "in_context_recall"
  train_rows: int = 0
  noise: float = 0.2
  tokens: int = 16

  def __post_init__(self) -> None:
    self.require_sizes()
    self.require("problem", self.problem in BASELINES, f"choose from {list(BASELINES)}")
    for field, value in zip(("vocab", "length", "train_rows"), BASELINES[self.problem]):
      if getattr(self, field) == 0:
        object.__setattr__(self, field, value)
    self.require("train_rows", self.train_rows >= -1, "at least 1, 0 for the baseline's, -1 for new rows for ever")
    least = {"noisy_in_context_recall": mad_rows.NOISE + 4, "fuzzy_in_context_recall": 8}.get(self.problem, 4)
    self.require("vocab", self.vocab >= least, f"at least {least}")
    copying = self.problem == "selective_copying"
    shortest = 2 * self.tokens + 2 if copying else 16
    self.require("length", self.length >= shortest, f"at least {shortest}")
    self.require("length", copying or self.length % 2 == 0, "even: a row has pairs")
    self.require("noise", 0 <= self.noise < 1, "0 … 1, without 1")
    self.require("tokens", self.tokens >= 1, "at least 1")

  @property
  def head(self) -> str:  # type: ignore[override]
    """Returns the name of the head: compression reads the last token alone, the others are language models."""
    return "autoencoder" if self.problem == "compression" else "lm"

  @functools.cached_property
  def training_set(self) -> Batch:
    """Makes all rows of the training set."""
    # recall compares all pairs of a row with each other, which `whole` bounds
    return whole(functools.partial(self.sample, self.seed, "train", evaluate=False), self.train_rows)

  def training_rows(self, first: int, rows: int) -> Batch:
    """Returns rows of the training stream: epochs of the training set, or new rows; see `Generated.training_rows`."""
    if self.train_rows < 0:
      return self.sample(self.seed, "train", first, rows, evaluate=False)
    numbers = pipeline.shuffled(self.seed, "mad/order", first, rows, self.train_rows)
    return {key: x[numbers] for key, x in self.training_set.items()}

  def validation_rows(self, first: int, rows: int) -> Batch:
    """Returns rows of the fixed validation set; see `Generated.validation_rows`."""
    return self.sample(EVAL_SEED, "validation", first, rows, evaluate=True)

  def sample(self, seed: int, stream: str, first: int, rows: int, *, evaluate: bool) -> Batch:
    """Returns `rows` rows of one stream, with what evaluation scores or what training does."""
    u = functools.partial(draws.bits, seed, f"mad/{self.problem}/{stream}", first, rows)
    if self.problem in RECALL:
      recall = mad_rows.fuzzy_recall if self.problem == RECALL[2] else mad_rows.recall
      arguments = {"evaluate": evaluate} if self.problem == RECALL[2] else {"noise": self._noise}
      inputs, answers = recall(u, self.length, self.vocab, **arguments)
    else:
      inputs, answers = self._written(u)
    scored = answers >= 0
    if self.problem in RECALL and not evaluate:
      answers = np.roll(inputs, -1, axis=1)
      scored = np.arange(self.length) < self.length - 1
    weights = np.broadcast_to(scored, inputs.shape).astype(np.float32)
    return {"inputs": inputs, "targets": np.where(scored, answers, 0).astype(np.int32), "weights": weights}

  @property
  def _noise(self) -> float | None:
    return self.noise if self.problem == RECALL[1] else None

  def _written(self, u: Callable[[int], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    if self.problem == "selective_copying":
      return mad_rows.selective_copying(u, self.length, self.vocab, self.tokens)
    return getattr(mad_rows, self.problem)(u, self.length, self.vocab)
