"""RegBench's rows are strings of one automaton each, with the frequencies of its definition."""

import numpy as np

from data import draws
from data.task import build_task


def strings(batch):
  """The strings of each row; only at the end of a full row is a target that is no input."""
  for inputs, targets, length in zip(batch["inputs"].tolist(), batch["targets"], batch["lengths"]):
    row = [*inputs[:length], *targets[length - 1 : length][targets[length - 1 : length] > 0].tolist()]
    parts = [[]]
    for token in row:
      if token == 1:
        parts.append([])
      else:
        parts[-1].append(token)
    yield parts


def test_strings_are_those_of_their_automaton():
  task = build_task("regbench", train_rows=0)
  stream = "regbench/train"
  drawn = 1 + 19 + (task.length + 1) + task._automaton_draws
  u = draws.bits(0, stream, 0, 100, drawn)
  many, symbol, target = task.automata(u[:, -task._automaton_draws :])
  taken = []
  for row, parts in enumerate(strings(task.training_rows(0, 100))):
    for part in parts:
      state = 0
      for token in part:
        edges = symbol[row, state, : many[row, state]].tolist()
        assert len(set(edges)) == len(edges)
        assert token in edges
        taken.append((len(edges), edges.index(token)))
        state = target[row, state, edges.index(token)]
  for n in (2, 3):
    shares = np.bincount([edge for size, edge in taken if size == n]) / sum(size == n for size, _ in taken)
    assert abs(shares - 1 / n).max() < 0.02


def test_automata_have_the_published_sizes():
  task = build_task("regbench")
  u = draws.bits(0, "test", 0, 20000, task._automaton_draws)
  many, symbol, target = task.automata(u)
  size = 2 + draws.below(u[:, 0], 10)
  assert set(size) == set(range(2, 12))
  for n in (2, 3, 11):
    here = size == n
    assert target[here].max() == n - 1
    expected = np.ones(min(4, n) - 1) / (min(4, n) - 1)
    assert abs(np.bincount(many[here][:, 0])[1:] / here.sum() - expected).max() < 0.06
    # each state's first edge is uniform among the automaton's symbols
    first = symbol[here][:, :n, 0]
    assert max(len(set(row)) for row in first.tolist()) <= n
    assert abs(np.bincount(target[here][:, 0, 0], minlength=n) / here.sum() - 1 / n).max() < 0.06
  shares = np.bincount(symbol[:, 0, 0], minlength=20)[2:] / 20000
  assert abs(shares - 1 / 18).max() < 6 * np.sqrt(1 / 18 / 20000)


def test_rows_have_the_published_numbers_of_strings_and_symbols():
  rows = list(strings(build_task("regbench", train_rows=0).training_rows(0, 400)))
  assert {len(parts) for parts in rows} == set(range(10, 20))
  sizes = [len(part) for parts in rows for part in parts[:-1]]
  assert (min(sizes), max(sizes)) == (0, 49)
  assert abs(np.mean(sizes) - 24.5) < 0.6


def test_a_set_of_automata_comes_back_each_epoch_in_another_order():
  task = build_task("regbench", train_rows=20, length=64)
  epochs = [[row.tobytes() for row in task.training_rows(20 * i, 20)["inputs"]] for i in range(2)]
  assert set(epochs[0]) == set(epochs[1])
  assert len(set(epochs[0])) == 20
  assert epochs[0] != epochs[1]
