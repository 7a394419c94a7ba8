"""MQAR's newer forms against their definitions, read back row by row."""

import numpy as np
import pytest

from data.task import build_task


def rows(task, count=300):
  batch = task.training_rows(0, count)
  return zip(batch["inputs"].tolist(), batch["targets"], batch["weights"])


def test_forgetting_asks_for_the_last_value_of_every_key():
  task = build_task("mqar_forms", length=48, vocab=64, pairs=6, updates=3, random_non_queries=False)
  updated = np.zeros(6)
  for inputs, targets, weights in rows(task):
    keys, values = inputs[0:18:2], inputs[1:18:2]
    assert len(set(keys[:6])) == 6
    assert len(set(values[:6])) == 6
    assert set(keys[6:]) <= set(keys[:6])
    assert len(set(keys[6:])) == 3
    assert all(1 <= key < 32 for key in keys)
    assert all(32 <= value < 64 for value in values)
    first, last = dict(zip(keys[:6], values)), dict(zip(keys, values))
    assert all(first[key] != last[key] for key in keys[6:])
    places = np.flatnonzero(weights)
    assert sorted(inputs[place] for place in places) == sorted(keys[:6])
    assert all(targets[place] == last[inputs[place]] for place in places)
    assert set(places % 2) == {0}
    assert places.min() >= 18
    assert sum(token > 0 for token in inputs[18:]) == 6
    updated += [keys[i] in keys[6:] for i in range(6)]
  assert abs(updated / 300 - 0.5).max() < 5 * np.sqrt(0.25 / 300)


def test_compositional_keys_are_all_combinations_of_two_tokens():
  task = build_task("mqar_forms", form="compositional", length=60, vocab=90, pairs=9, random_non_queries=False)
  for inputs, targets, weights in rows(task):
    value_of = {(inputs[i], inputs[i + 1]): inputs[i + 2] for i in range(0, 27, 3)}
    left, right = {a for a, _ in value_of}, {b for _, b in value_of}
    assert (len(value_of), len(left), len(right), len(set(value_of.values()))) == (9, 3, 3, 9)
    assert all(1 <= a < 30 <= b < 60 <= value < 90 for (a, b), value in value_of.items())
    places = np.flatnonzero(weights)
    assert {(inputs[p - 1], inputs[p]): targets[p] for p in places} == value_of
    assert set(places % 3) == {1}
    assert sum(token > 0 for token in inputs[27:]) == 18


def test_the_order_of_combinations_is_random():
  task = build_task("mqar_forms", form="compositional", length=32, vocab=64, pairs=4)
  same_first = [inputs[0] == inputs[3] for inputs, *_ in rows(task, 3000)]
  # of the three others, one shares the first combination's first token
  assert abs(np.mean(same_first) - 1 / 3) < 5 * np.sqrt(2 / 9 / 3000)


@pytest.mark.parametrize("form,step,tokens", [("forgetting", 2, 12), ("compositional", 3, 12)])
def test_gaps_follow_the_power_law(form, step, tokens):
  task = build_task("mqar_forms", form=form, length=60, vocab=64, pairs=4, power=0.1)
  places = [np.flatnonzero(weights)[0] for *_, weights in rows(task, 4000)]
  gap = (np.array(places) - tokens) // step
  p = np.arange(1, (60 - tokens) // step + 1) ** -0.9
  p /= p.sum()
  # how often any of four draws without replacement is the first slot
  rng = np.random.default_rng(0)
  expected = np.mean([0 in rng.choice(len(p), 4, replace=False, p=p) for _ in range(4000)])
  assert abs((gap == 0).mean() - expected) < 0.04


def test_vectors_are_asked_for_by_their_numbers():
  task = build_task("continuous_mqar", values=20, size=8, pairs=5, passes=2)
  keys, values = task.vectors()
  assert (task.length, task.vocab, task.features) == (15, 20, 16)
  number = lambda table, vector: int(np.flatnonzero((table == vector).all(axis=1))[0])
  batch = task.training_rows(0, 100)
  orders = set()
  for inputs, targets, weights in zip(batch["inputs"], batch["targets"], batch["weights"]):
    shown = [(number(keys, x[:8]), number(values, x[8:])) for x in inputs[:10]]
    assert set(shown[:5]) == set(shown[5:])
    assert len(dict(shown)) == len({value for _, value in shown}) == 5
    assert not inputs[10:, 8:].any()
    asked = [number(keys, x[:8]) for x in inputs[10:]]
    assert sorted(asked) == sorted(dict(shown))
    assert [dict(shown)[key] for key in asked] == targets[10:].tolist()
    assert weights.tolist() == [0] * 10 + [1] * 5
    orders.add(tuple(shown.index(pair) for pair in shown[5:]))
  assert len(orders) > 50


def test_vectors_are_normal_and_the_same_for_every_seed():
  task = build_task("continuous_mqar", values=500, size=40)
  x = task.vectors() * np.sqrt(40)
  assert abs(x.mean()) < 5 / np.sqrt(x.size)
  assert abs(x.var() - 1) < 5 * np.sqrt(2 / x.size)
  assert abs(np.quantile(x, 0.84) - 1) < 0.03
  assert np.array_equal(task.vectors(), build_task("continuous_mqar", values=500, size=40, seed=3).vectors())
