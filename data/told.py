"""What a run on sequences from files says of them at its start: how many there are, what is read and what not."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from data.sequences import Sequences

# names of classes that fit a line
MOST = 20


def told(data: Sequences, sizes: Mapping[str, int], *, classes: int | None, vocab: int | None, left_out: str) -> str:
  """Returns a line with numbers of sequences, steps, features and rows, with the names of classes, and lines with what
  is left out.

  Args:
    sizes: rows of each split.
    left_out: what else of the data is not read; may be empty.
  """
  shortest, longest = data.lengths.min(), data.lengths.max()
  steps = f"{longest}" if shortest == longest else f"{shortest} to {longest}"
  count = data.values.shape[1]
  step = f"tokens below {vocab}" if vocab else f"{count} feature{'s' * (count != 1)}"
  parts = [
    f"data: {len(data)} sequence{'s' * (len(data) != 1)} of {steps} steps of {step}",
    *([f"columns {', '.join(data.inputs)}"] if data.inputs else []),
    ", ".join(f"{split} {size}" for split, size in sizes.items()) + " rows",
    *([] if classes is None else [f"{classes} classes{_names(data.targets)}"]),
  ]
  unused = f"not read of the file: {', '.join(data.unused)}" if data.unused else ""
  return "\n".join(filter(None, ("; ".join(parts), unused, left_out)))


def _names(targets: Any) -> str:
  """Returns the names behind the numbers of classes, where labels are no numbers."""
  targets = np.asarray(targets).ravel()
  if np.issubdtype(targets.dtype, np.integer):
    return ""
  names = np.unique(targets)
  shown = [f"{number} {name}" for number, name in enumerate(names[:MOST])]
  return f": {', '.join(shown)}{' …' * (len(names) > MOST)}"
