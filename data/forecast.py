"""What a forecast of a series predicts, and how far off the last value that it has read is."""

from collections.abc import Mapping

import numpy as np

from data.sequences import Sequences
from data.splits import SPLITS, windows
from mistake import Mistake

# the value `horizon` steps on, or each of the next `horizon`
AHEAD = ("last", "each")


def rows(
  data: Sequences, splits: np.ndarray | None, *, length: int, horizon: int, validation: float, test: float, source: str
) -> dict[str, np.ndarray]:
  """Returns the windows of every split that has some, as data/splits.windows makes them.

  Raises:
    Mistake: a split that there must be is too short for a window.
  """
  found = windows(data, splits, reach=length + horizon, validation=validation, test=test)
  wanted = {"train": True, "validation": validation > 0, "test": test > 0 and splits is None}
  for split in SPLITS:
    if not len(found[split]) and (wanted[split] or splits is not None and split in splits):
      raise Mistake(f"the {split} part of {source} has no {length + horizon} steps; lower data.length={length}")
  return {split: each for split, each in found.items() if len(each)}


def answers(values: np.ndarray, begins: np.ndarray, *, length: int, horizon: int, ahead: str) -> np.ndarray:
  """Returns what comes after windows of `length` steps: numbers, step by step, float64 `rows steps·columns`.

  Args:
    values: the columns that are forecast, `steps columns`.
    begins: first steps of the windows.
  """
  steps = np.arange(1, horizon + 1) if ahead == "each" else np.array([horizon])
  return values[begins[:, None] + length - 1 + steps].reshape(len(begins), -1)


def repeated(values: np.ndarray, begins: Mapping[str, np.ndarray], *, length: int, horizon: int, ahead: str) -> str:
  """Returns a line with the mean squared and absolute errors of repeating the last value, for each set of windows."""
  told = []
  for split, first in begins.items():
    last, squares, distances = values[first + length - 1], [], []
    # one step at a time, as all windows with all their steps may be far larger than the series
    for step in range(1 if ahead == "each" else horizon, horizon + 1):
      wrong = values[first + length - 1 + step] - last
      squares.append(np.square(wrong).mean())
      distances.append(np.abs(wrong).mean())
    told.append(f"{split} mse {np.mean(squares):.4g}, mae {np.mean(distances):.4g}")
  return f"repeating the last value: {'; '.join(told)}" if told else ""
