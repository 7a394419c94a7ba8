"""What the processes of a run tell each other; tests/faults.py runs real ones."""

import logging

import numpy as np
import pytest

from training import processes


def rows(*numbers):
  """A batch whose rows are told by numbers."""
  return {"inputs": np.asarray(numbers)[:, None] + np.arange(3), "weights": np.ones((len(numbers), 3))}


def digests(*numbers):
  return list(processes.digests(rows(*numbers)))


def test_a_row_is_told_by_all_of_its_arrays_and_by_nothing_else():
  batch = rows(1, 2, 1)
  assert len(set(digests(1, 2, 1))) == 2
  assert digests(1, 2, 1) == list(processes.digests(dict(reversed(batch.items()))))
  assert digests(2, 1)[0] == digests(1, 2)[1], "its place in the batch is of no account"
  batch["weights"][1] = 0
  assert [a == b for a, b in zip(processes.digests(batch), digests(1, 2, 1), strict=True)] == [True, False, True]


@pytest.mark.parametrize(
  "found, shared",
  [
    ([range(0, 8), range(8, 16)], {}),
    ([range(8), range(8)], {(0, 1): 8}),
    ([range(8), range(6, 14)], {(0, 1): 2}),
    ([range(8), range(8, 16), (20, 3, 9)], {(0, 2): 1, (1, 2): 1}),
    ([range(4)] * 3, {(0, 1): 4, (0, 2): 4}),
    # four rows in all, which each process has again and again
    ([(0, 1, 2, 3, 2, 0, 1, 3), (3, 1, 0, 2, 0, 1, 2, 3)], {}),
    # one that the data has often
    ([(0, 5, 5, 1), (5, 2, 3, 4)], {}),
  ],
)
def test_rows_that_processes_share_are_counted(found, shared):
  assert processes.shared_rows([digests(*numbers) for numbers in found]) == shared


@pytest.mark.parametrize("first", [2, 3, 4])
def test_processes_with_the_same_rows_are_warned_of(first, monkeypatch, caplog):
  """Of three processes, the last begins at a row that the first has in its second batch, or at one that it has not."""
  others = [digests(8, 9, 10, 11), digests(*range(first, first + 4))]
  monkeypatch.setattr(processes.jax, "process_count", lambda: 3)
  monkeypatch.setattr(processes, "gather", lambda text: [text, *map(" ".join, others)])
  with caplog.at_level(logging.WARNING):
    processes.warn_of_same_rows(rows(0, 1), iter([rows(2, 3)]))
  count = 4 - first
  assert (f"processes 0 and 2 share {count} of their first 4 rows; data.name" in caplog.text) == (count > 0)
  assert bool(caplog.text) == (count > 0)


def test_a_single_process_draws_no_batch():
  later = iter([rows(2, 3)])
  processes.warn_of_same_rows(rows(0, 1), later)
  assert len(list(later)) == 1
