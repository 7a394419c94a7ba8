"""Which sequences, or which windows of a series, are for training, validation and test."""

import numpy as np

from data import draws
from data.sequences import Sequences

SPLITS = ("train", "validation", "test")

OTHER_NAMES = {"0": "train", "1": "validation", "2": "test", "valid": "validation", "val": "validation"}


def renamed(splits: np.ndarray) -> np.ndarray:
  """Returns the splits of sequences by the names above, where files call them otherwise."""
  return np.array([OTHER_NAMES.get(name, name) for name in np.char.lower(splits.astype(str)).tolist()])


def shares(groups: np.ndarray, *, validation: float, test: float) -> np.ndarray:
  """Returns the split of each sequence: whole groups in a fixed random order, until a share is full."""
  _, number, sizes = np.unique(groups, return_inverse=True, return_counts=True)
  order = draws.permutation(0, "arrays/groups", 0, len(sizes))
  before = np.empty(len(sizes))
  before[order] = (np.cumsum(sizes[order]) - sizes[order]) / len(groups)
  edge = np.where(before < test, 2, np.where(before < test + validation, 1, 0))
  return np.array(SPLITS)[edge][number.ravel()]


def windows(
  data: Sequences, splits: np.ndarray | None, *, reach: int, validation: float, test: float
) -> dict[str, np.ndarray]:
  """Returns all windows whose inputs and target lie in one split: starts in `data.values` and series, int64 `rows 2`.

  Args:
    splits: of each series, which lies in that alone; if none is for validation, those of training end with it. None for
      a train, a validation and a test part of every series, in this order.
    reach: steps from the first input to the target.
    validation, test: shares of a series.
  """
  parts: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
  held = 0.0 if splits is not None and "validation" in splits else validation
  own = {"train": (0, 1 - held, 1, 1), "validation": (0, 0, 1, 1), "test": (0, 0, 0, 1)}
  parts_of_all = (0, 1 - validation - test, 1 - test, 1)
  for which, (start, size) in enumerate(zip(data.starts, data.lengths)):
    cuts = [round(size * share) for share in (parts_of_all if splits is None else own[splits[which]])]
    for split, low, high in zip(SPLITS, cuts[:-1], cuts[1:]):
      first = np.arange(start + low, start + high - reach + 1)
      parts[split].append(np.stack([first, np.full(len(first), which)], axis=1))
  return {split: np.concatenate(each) for split, each in parts.items()}


def covered(begins: np.ndarray, ends: np.ndarray, size: int) -> np.ndarray:
  """Returns which of `size` steps lie in a row that begins and ends there."""
  # one more where a row begins, one less where it ends
  change = np.zeros(size + 1, np.int64)
  np.add.at(change, begins, 1)
  np.add.at(change, ends, -1)
  return np.cumsum(change)[:-1] > 0
