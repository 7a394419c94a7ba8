"""RULER's problems against their definitions, read back row by row."""

from collections import Counter

import numpy as np
import pytest

from data.ruler import IS, NOISE, QUESTION, WORD
from data.task import build_task


def rows(task, count=100):
  batch = task.training_rows(0, count)
  for row, targets, weights in zip(batch["inputs"].tolist(), batch["targets"].tolist(), batch["weights"]):
    places = np.flatnonzero(weights)
    assert [targets[p] for p in places] == [row[p + 1] for p in places]
    assert places[-1] == len(row) - 2
    yield row, places + 1


def needles(context):
  """(key, value) of each "key is value", in order; the rest is noise in its order."""
  places = [i for i, token in enumerate(context) if token == IS]
  noise = [(i, token) for i, token in enumerate(context) if NOISE <= token < WORD]
  assert len(noise) + 3 * len(places) == len(context)
  assert all(token == NOISE + i % (WORD - NOISE) for i, token in noise)
  return [(context[i - 1], context[i + 1]) for i in places]


@pytest.mark.parametrize(
  "fields",
  [{}, {"keys": 4}, {"keys": 2, "values": 4}, {"keys": 5, "queries": 4}, {"haystack": "needles", "keys": 3}],
  ids=str,
)
def test_needles_are_asked_for_by_their_keys(fields):
  task = build_task("ruler", length=128, vocab=256, **fields)
  asked = []
  for row, places in rows(task):
    start = row.index(QUESTION)
    held = needles(row[:start])
    many = task.keys * task.values
    assert len(held) == (start // 3 if task.haystack == "needles" else many)
    tail = np.array(row[start:]).reshape(task.queries, 2 + task.values)
    assert (tail[:, 0] == QUESTION).all()
    assert len(set(tail[:, 1])) == task.queries
    for key, *values in tail[:, 1:].tolist():
      assert [value for each, value in held if each == key] == values
    assert places.tolist() == [start + i for i in range(len(row) - start) if i % (2 + task.values) > 1]
    asked.append([key for key, _ in held].index(tail[0, 1]) / len(held))
  assert len(set(asked)) > 1 or task.keys == 1


@pytest.mark.parametrize("chains", [1, 3])
def test_variables_are_followed_through_their_chain(chains):
  task = build_task("ruler", problem="variable_tracking", length=160, vocab=256, keys=chains)
  for row, places in rows(task):
    start = row.index(QUESTION)
    held = needles(row[:start])
    assert len(held) == 5 * chains
    value_of = {}
    for name, source in held:
      # what a variable is set to is known already
      value_of[name] = value_of.get(source, source)
    assert all(value >= WORD + task.half for value in value_of.values())
    assert len(set(value_of.values())) == chains
    assert row[start + 2 :] == [name for name, value in value_of.items() if value == row[start + 1]]
    assert places.tolist() == list(range(start + 2, len(row)))


def test_common_words_are_ten_and_asked_in_their_order():
  task = build_task("ruler", problem="common_words", length=500, vocab=512)
  for row, places in rows(task, 20):
    context, answers = row[:-11], row[-10:]
    counts = Counter(token for token in context if token >= WORD)
    assert Counter(counts.values()) == {30: 10, 3: (489 - 300) // 3}
    common = [token for token, many in counts.items() if many == 30]
    assert answers == sorted(common, key=context.index)
    assert len(places) == 10
    assert row[-11] == QUESTION


def test_frequent_words_are_asked_by_frequency():
  task = build_task("ruler", problem="frequent_words", length=200, vocab=128)
  where = []
  for row, _ in rows(task, 60):
    counts = Counter(token for token in row[:-4] if token >= WORD)
    assert [token for token, _ in counts.most_common(3)] == row[-3:]
    (_, a), (_, b), (_, c) = counts.most_common(3)
    assert a > b > c
    assert abs(a / b - 4) < 0.3
    where.append(row.index(row[-3]))
  assert np.std(where) > 0


def test_rows_are_asked_at_several_lengths():
  task = build_task("ruler", length=64, vocab=128, eval_lengths=(64, 256), eval_rows=4)
  assert [next(run())["inputs"].shape[1] for run in task.eval_sets().values()] == [64, 256]
