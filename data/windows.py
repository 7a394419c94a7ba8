"""Rows of forecasts: where each begins in a series, so that its inputs and its target lie in one split."""

import numpy as np

from data.sequences import Sequences

SPLITS = ("train", "validation", "test")


def windows(
  data: Sequences, splits: np.ndarray | None, *, reach: int, validation: float, test: float
) -> dict[str, np.ndarray]:
  """Returns the rows of each split, each a start in `data.values` and its series, int64 `rows 2`.

  Args:
    splits: of each series, which lies in that alone; if none is for validation, those of training end with it. None for
      a train, a validation and a test part of every series, in this order.
    reach: steps from the first input to the target.
    validation, test: shares of a series.
  """
  parts: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
  held = 0.0 if splits is not None and "validation" in splits else validation
  own = {"train": (0, 1 - held, 1, 1), "validation": (0, 0, 1, 1), "test": (0, 0, 0, 1)}
  shares = (0, 1 - validation - test, 1 - test, 1)
  for which, (start, size) in enumerate(zip(data.starts, data.lengths)):
    cuts = [round(size * share) for share in (shares if splits is None else own[splits[which]])]
    for split, low, high in zip(SPLITS, cuts[:-1], cuts[1:]):
      first = np.arange(start + low, start + high - reach + 1)
      parts[split].append(np.stack([first, np.full(len(first), which)], axis=1))
  return {split: np.concatenate(each) for split, each in parts.items()}
