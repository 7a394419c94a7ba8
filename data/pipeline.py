"""From a function of row numbers to iterators: endless and resumable for training, finite and padded for evaluation.

A task says how rows `first … first + n - 1` look; nothing else depends on the batch, the process or the time. Global
batch s holds rows s·batch … s·batch + batch - 1, and process i of n makes the i-th of n equal shares of it, so that the
global batch is the same for every n.
"""

import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, SupportsIndex

import numpy as np

from data import draws, events
from mistake import Mistake

Batch = dict[str, np.ndarray]
Rows = Callable[[int, int], Batch]

# batches made ahead by one thread while the device works on the present one
AHEAD = 4


def share(batch: int, process_index: int, process_count: int) -> int:
  """Returns how many rows of every global batch one process makes.

  Raises:
    ValueError: `batch` does not divide over the processes.
  """
  if not 0 <= process_index < process_count:
    raise Mistake(f"process_index={process_index} must lie in 0 … process_count - 1 = {process_count - 1}")
  if not 1 <= batch < 2**31:
    raise Mistake(f"data.batch={batch}; it must be at least 1 row, and below 2^31")
  if batch % process_count:
    raise Mistake(
      f"data.batch={batch} does not divide over {process_count} processes: use a multiple of {process_count}"
    )
  return batch // process_count


class Batches:
  """Random access to this process's share of each global batch: what grain calls a data source."""

  def __init__(self, rows: Rows, batch: int, process_index: int, process_count: int):
    self.rows, self.batch = rows, batch
    self.count = share(batch, process_index, process_count)
    self.offset = process_index * self.count

  def __len__(self) -> int:
    return 2**62 // self.batch

  def __getitem__(self, step: SupportsIndex) -> Batch:
    return events.checked(self.rows(int(step) * self.batch + self.offset, self.count))


def training(rows: Rows, batch: int, process_index: int, process_count: int) -> Iterator[Batch]:
  """Returns an endless grain iterator; `get_state()` is a small dictionary for JSON, `set_state` resumes exactly."""
  source = Batches(rows, batch, process_index, process_count)
  # grain takes seconds to import, which `--mode count` and `generate` need not wait for
  import grain

  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)
  return iter(grain.MapDataset.source(source).to_iter_dataset(options))


class InOrder:
  """Rows 0 … total - 1 in order, once per call; its length is the number of batches.

  Rows of zeros, weights included, fill up the last batch.
  """

  def __init__(self, rows: Rows, total: int, batch: int, process_index: int, process_count: int):
    self._rows, self._total, self._batch = rows, total, batch
    self._count = share(batch, process_index, process_count)
    self._offset = process_index * self._count

  def __len__(self) -> int:
    return -(-self._total // self._batch)

  def __call__(self) -> Iterator[Batch]:
    for start in range(self._offset, len(self) * self._batch, self._batch):
      have = min(max(self._total - start, 0), self._count)
      # a share beyond the end takes its shapes from some row
      yield filled(events.checked(self._rows(start if have else 0, max(have, 1))), have, self._count)


def filled(batch: Batch, have: int, want: int) -> Batch:
  """Returns the first `have` rows of `batch`, then rows of zeros up to `want`."""
  return {
    key: np.concatenate([x[:have], np.zeros((want - have, *x.shape[1:]), x.dtype)]) if have < want else x[:have]
    for key, x in batch.items()
  }


def shuffled(seed: int, stream: str, first: int, count: int, size: int) -> np.ndarray:
  """Returns which of `size` examples are rows first … first + count - 1 of endless epochs, each in its own order."""
  numbers, parts = np.arange(first, first + count), []
  for epoch in range(first // size, (first + count - 1) // size + 1):
    inside = numbers[numbers // size == epoch] % size
    parts.append(_order(seed, stream, epoch, size)[inside])
  return np.concatenate(parts)


@functools.lru_cache(maxsize=8)
def _order(seed: int, stream: str, epoch: int, size: int) -> np.ndarray:
  return draws.permutation(seed, stream, epoch, size)


def require(name: str, field: str, value: Any, allowed: bool, choices: str) -> None:
  """Raises the ValueError all tasks use for a field that does not fit: thing, value, choices."""
  if not allowed:
    raise Mistake(f"data.{field}={value!r} does not fit task {name!r}: {choices}")


def folder(field: str, value: str) -> pathlib.Path:
  """Returns the path of a field that names a file or a folder; `~` is the home folder.

  Raises:
    Mistake: there is no such user, or no path can be written like that.
  """
  try:
    path = pathlib.Path(value).expanduser()
    path.is_dir()
  except (RuntimeError, ValueError, OSError) as error:
    raise Mistake(f"data.{field}={value!r} is no path: {error}; give one that exists") from None
  return path
