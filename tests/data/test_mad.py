"""MAD's problems against their definitions, read back row by row."""

import itertools

import numpy as np
import pytest

from data import mad_rows
from data.task import build_task


def rows(task, evaluate=True, count=200):
  batch = task.validation_rows(0, count) if evaluate else task.training_rows(0, count)
  for inputs, targets, weights in zip(batch["inputs"].tolist(), batch["targets"].tolist(), batch["weights"]):
    yield inputs, {place: targets[place] for place in np.flatnonzero(weights).tolist()}


@pytest.mark.parametrize("problem", ["in_context_recall", "noisy_in_context_recall"])
def test_recall_asks_for_the_value_of_every_key_that_comes_again(problem):
  task = build_task("mad", problem=problem, noise=0.4)
  keys = 8
  noisy, last, total = 0, 0, 0
  for inputs, asked in rows(task):
    known, expected = {}, {}
    for place in range(0, 128, 2):
      key, value = inputs[place : place + 2]
      total += 1
      if key >= 2 * keys:
        assert value >= 2 * keys
        noisy += 1
        continue
      assert key < keys <= value < 2 * keys
      if key in known:
        expected[place] = value
      assert known.setdefault(key, value) == value
    assert asked == expected
    last += 126 in asked
  assert last == 200
  assert abs(noisy / total - (0.4 * 62 / 64 if problem.startswith("noisy") else 0)) < 0.02


def motifs(inputs, padding, keys):
  """Runs of key and value tokens, with the place where each ends."""
  place, runs = 0, []
  for kind, run in itertools.groupby(inputs, lambda token: 2 if token == padding else int(token >= keys)):
    run = tuple(run)
    place += len(run)
    runs += [(kind, run, place)] if kind < 2 else []
  assert [kind for kind, *_ in runs] == [0, 1] * (len(runs) // 2)
  return [(key, value, end) for (_, key, _), (_, value, end) in zip(runs[::2], runs[1::2])]


@pytest.mark.parametrize("evaluate", [True, False])
def test_fuzzy_recall_has_keys_and_values_of_several_tokens(evaluate):
  task = build_task("mad", problem="fuzzy_in_context_recall", train_rows=-1)
  sizes = []
  for inputs, asked in rows(task, evaluate):
    known, expected = {}, {}
    pairs = motifs(inputs, 15, 7)
    for key, value, end in pairs:
      assert len(set(key)) == len(key) <= 3
      assert len(set(value)) == len(value) <= 3
      sizes.append((len(key), len(value)))
      if key in known:
        expected |= {end - len(value) - 1 + i: token for i, token in enumerate(value)}
      assert known.setdefault(key, value) == value
    # the last key has been there
    assert pairs[-1][2] == 128
    assert any(key == pairs[-1][0] for key, *_ in pairs[:-1])
    assert asked == (expected if evaluate else dict(enumerate(inputs[1:])))
  keys, values = np.array(sizes).T
  assert set(keys) == ({3} if evaluate else {1, 2, 3})
  assert abs(np.bincount(values)[1:] / len(values) - 1 / 3).max() < 0.1


def test_memorization_has_one_value_for_each_key_in_all_rows():
  task = build_task("mad", problem="memorization")
  assert len({row.tobytes() for row in task.training_set["inputs"]}) == 256
  values = {}
  for inputs, asked in [*rows(task), *rows(task, evaluate=False)]:
    assert inputs[1::2] == [255] * 16
    assert list(asked) == list(range(1, 32, 2))
    for place, value in asked.items():
      assert 127 <= value < 255
      assert values.setdefault(inputs[place - 1], value) == value
  assert len(set(values.values())) == len(values) == 127


def test_compression_asks_for_the_row_itself():
  task = build_task("mad", problem="compression")
  assert (task.head, build_task("mad").head) == ("autoencoder", "lm")
  for inputs, asked in rows(task):
    assert [*asked.values()] == inputs
    assert inputs[-1] == 15
    assert max(inputs[:-1]) < 15


def test_selective_copying_scatters_blanks_before_the_tokens():
  gaps = []
  for inputs, asked in rows(build_task("mad", problem="selective_copying", length=64, tokens=8)):
    data = [token for token in inputs[:55] if token < 14]
    assert inputs[55:] == [15] + [14] * 8
    assert asked == dict(enumerate(data, 56))
    places = [place for place, token in enumerate(inputs[:55]) if token < 14]
    assert places[-1] == 54
    gaps.append(np.diff([-1, *places]) - 1)
  # each of 47 blanks stands before any of 8 tokens
  assert abs(np.mean(gaps, axis=0) - 47 / 8).max() < 6 * np.sqrt(47 * 7 / 64 / 200)


def test_an_epoch_has_every_row_once_in_an_order_of_its_own():
  task = build_task("mad", problem="compression", train_rows=50)
  epochs = [[row.tobytes() for row in task.training_rows(50 * i, 50)["inputs"]] for i in range(2)]
  assert set(epochs[0]) == set(epochs[1])
  assert epochs[0] != epochs[1]
  assert len(set(epochs[0])) == 50
  across = task.training_rows(40, 20)["inputs"]
  assert [row.tobytes() for row in across] == epochs[0][40:] + epochs[1][:10]


def test_one_of_the_different_codes_is_chosen_evenly():
  codes = np.tile([3, 5, 3, 3, 7, 5], (30000, 1))
  counts = np.tile([True, True, True, True, True, False], (30000, 1))
  u = np.random.default_rng(0).integers(0, 2**32, 30000, dtype=np.uint32)
  chosen = np.bincount(mad_rows.one_of(codes, counts, u), minlength=6) / 30000
  assert abs(chosen - np.array([1, 1, 0, 0, 1, 0]) / 3).max() < 0.02
