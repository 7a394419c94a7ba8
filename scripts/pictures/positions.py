"""The loss of language models by the position of a token, also beyond the length of the training."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from mistake import Mistake
from training.run import Run
from training.workdir import get_config

BITS_PER_NAT = 1 / np.log(2)
# positions that share a point of a line
WINDOW = 16


def longer(folder: Path, length: int) -> ConfigDict:
  """Returns the config of a run with evaluation rows of `length` tokens.

  Raises:
    Mistake: its task has rows of one length.
  """
  config = get_config(str(folder))
  if "eval_length" not in config.data:
    raise Mistake(f"--length={length}: rows of task {config.data.name!r} of {folder} have one length; leave it out")
  with config.unlocked():
    config.data.eval_length = length
  return config


def losses(batches: Mapping[str, np.ndarray], logits: np.ndarray) -> np.ndarray:
  """Returns the mean cross entropy in bits at each position of rows of tokens; NaN where nothing is predicted.

  Args:
    batches: targets and weights, "b t".
    logits: "b t v".
  """
  top = logits.max(-1, keepdims=True)
  normalizer = np.log(np.exp(logits - top).sum(-1)) + top[..., 0]
  right = np.take_along_axis(logits, batches["targets"][..., None], axis=-1)[..., 0]
  weights = batches["weights"]
  total = weights.sum(0)
  nats = ((normalizer - right) * weights).sum(0)
  return np.where(total > 0, nats / np.maximum(total, 1), np.nan) * BITS_PER_NAT


def predicts_tokens(run: Run, weights: np.ndarray) -> bool:
  """Returns whether a run predicts each next token of its rows."""
  return run.task.head == "lm" and weights.ndim == 2


def draw(lines: Mapping[str, np.ndarray], trained: Mapping[str, int]) -> Figure:
  """Draws one line a run, each point a mean over WINDOW positions, with a rule at each length of training."""
  figure = Figure(figsize=(7, 4.5), layout="constrained")
  axes = figure.add_subplot(xlabel="position of the token", ylabel="bits per token")
  for name, values in lines.items():
    windows = np.array_split(values, max(1, len(values) // WINDOW))
    known = [(start, window) for start, window in zip(_starts(windows), windows) if np.isfinite(window).any()]
    axes.plot([start + len(w) / 2 for start, w in known], [np.nanmean(w) for _, w in known], label=name)
  for length in sorted(set(trained.values())):
    axes.axvline(length, color="k", linestyle=":", linewidth=1)
  axes.grid(alpha=0.3)
  axes.legend(fontsize=7)
  return figure


def _starts(windows: list[np.ndarray]) -> list[int]:
  return [0, *np.cumsum([len(window) for window in windows])[:-1].tolist()]
