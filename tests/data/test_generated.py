"""The generated tasks against their protocols: what stands where, with what frequency."""

import numpy as np
import pytest

from data.generated import FEW_ROWS, MANY_TOKENS, eval_batch
from data.task import build_task


def test_selective_copying_asks_for_the_data_in_order():
  task = build_task("selective_copying", batch=200, length=40, tokens=5)
  batch = task.training_rows(0, 200)
  for inputs, targets, weights in zip(batch["inputs"], batch["targets"], batch["weights"]):
    data = inputs[:35][inputs[:35] != 0]
    assert data.tolist() == targets[35:].tolist()
    assert 1 <= data.min() <= data.max() <= 14
    assert inputs[35:].tolist() == [15] * 5
    assert weights.tolist() == [0] * 35 + [1] * 5


def test_selective_copying_scatters_uniformly():
  inputs = build_task("selective_copying", length=24, tokens=4).training_rows(0, 20000)["inputs"][:, :20]
  places = (inputs != 0).mean(0)
  assert abs(places - 4 / 20).max() < 5 * np.sqrt(0.2 * 0.8 / 20000)
  values = np.bincount(inputs[inputs != 0], minlength=15)[1:] / (inputs != 0).sum()
  assert abs(values - 1 / 14).max() < 0.005


@pytest.mark.parametrize("triggers", [1, 3])
def test_induction_heads_put_the_answer_after_each_trigger(triggers):
  task = build_task("induction_heads", length=20, triggers=triggers, score="triggers")
  batch = task.training_rows(0, 500)
  for inputs, targets, weights in zip(batch["inputs"], batch["targets"], batch["weights"]):
    places = np.flatnonzero(inputs == 15)
    assert len(places) == triggers + 1
    assert places[-1] == 18
    assert places[-2] <= 16
    assert np.diff(places).min() >= 2
    answers = {int(targets[place]) for place in places}
    assert len(answers) == 1
    assert answers == {int(inputs[place + 1]) for place in places[:-1]}
    assert np.flatnonzero(weights).tolist() == places[1:].tolist()


def test_induction_heads_score_what_they_are_told_to():
  rows = lambda score: build_task("induction_heads", length=20, triggers=3, score=score).training_rows(0, 50)
  last, everything = rows("last"), rows("all")
  assert np.array_equal(last["inputs"], everything["inputs"])
  assert np.flatnonzero(last["weights"].sum(0)).tolist() == [18]
  assert everything["weights"].sum() == 50 * 19
  # but for the last, whose answer is no input, a target is the next input
  assert np.array_equal(everything["targets"][:, :18], everything["inputs"][:, 1:19])


def test_induction_heads_are_uniform_and_the_last_input_gives_nothing_away():
  batch = build_task("induction_heads", length=20).training_rows(0, 20000)
  places = np.argmax(batch["inputs"] == 15, axis=1)
  shares = np.bincount(places, minlength=17) / 20000
  assert len(shares) == 17
  assert abs(shares - 1 / 17).max() < 5 * np.sqrt(1 / 17 / 20000)
  answers = np.bincount(batch["targets"][:, 18], minlength=15) / 20000
  # chance: no answer is likelier than another
  assert abs(answers - 1 / 15).max() < 5 * np.sqrt(1 / 15 / 20000)
  assert abs((batch["inputs"][:, 19] == batch["targets"][:, 18]).mean() - 1 / 15) < 0.01


def test_short_sequences_are_packed_whole():
  task = build_task("induction_heads", batch=2, length=32, stages=((0, 8, 1), (3, 32, 1)))
  early, late = task.training_rows(4, 2), task.training_rows(6, 2)
  assert early["reset"].tolist() == [([True] + [False] * 7) * 4] * 2
  assert (early["inputs"].reshape(8, 8)[:, 6] == 15).all()
  assert (early["inputs"] == 15).sum() == 16
  assert early["weights"].sum() == 8
  assert late["reset"].tolist() == [[True] + [False] * 31] * 2
  assert late["weights"].sum() == 2


def test_evaluation_lengths_bound_the_memory():
  task = build_task("induction_heads", eval_lengths=(64, 2**20), eval_rows=256, eval_tokens=2**22)
  short = list(task.eval_sets()["length_64"]())
  assert sum(len(batch["inputs"]) for batch in short) == 256
  assert short[0]["weights"].sum() == len(short[0]["inputs"])
  assert (short[0]["inputs"] == 15).sum(1).tolist() == [2] * len(short[0]["inputs"])
  for batch, length in ((8, 2**20), (64, 2**20), (64, 64), (6, 2**20)):
    rows = eval_batch(batch, length, 256)
    assert rows * length <= max(MANY_TOKENS, batch * length if batch < FEW_ROWS else 0)
    assert rows % 2 == 0


def reference_mqar(rng, vocab, length, pairs, power):
  """Zoology's algorithm for one row, in its own order: context, gaps, queries, labels moved by one."""
  keys = rng.choice(np.arange(1, vocab // 2), pairs, replace=False)
  values = rng.choice(np.arange(vocab // 2, vocab), pairs, replace=False)
  space = (length - 2 * pairs) // 2
  p = power * np.arange(1, space + 1) ** (power - 1)
  gaps = rng.choice(space, pairs, replace=False, p=p / p.sum())
  queries = np.zeros(length - 2 * pairs + 1, int)
  labels = np.full(length + 1, -100)
  for key, value, gap in zip(keys, values, gaps):
    queries[2 * gap] = key
    labels[2 * gap + 2 * pairs + 1] = value
  context = np.stack([keys, values], 1).ravel()
  return np.concatenate([context, queries])[:-1], labels[1:], gaps


@pytest.mark.parametrize("power", [0.01, 1.0])
def test_mqar_gaps_follow_the_power_law(power):
  pairs, length = 4, 32
  batch = build_task("mqar", vocab=64, length=length, pairs=pairs, power=power).training_rows(0, 8000)
  found = np.flatnonzero(batch["weights"].ravel()) % length
  ours = np.bincount((found - 2 * pairs) // 2, minlength=12) / 8000
  rng = np.random.default_rng(0)
  theirs = np.bincount(np.concatenate([reference_mqar(rng, 64, length, pairs, power)[2] for _ in range(8000)])) / 8000
  assert abs(ours - theirs).max() < 0.03
  # the first draw, the place of the first key, has the law itself: p_i ∝ i^(power - 1)
  plain = build_task("mqar", vocab=64, length=length, pairs=pairs, power=power, random_non_queries=False)
  inputs = plain.training_rows(0, 8000)["inputs"]
  first = np.argmax(inputs[:, 2 * pairs :: 2] == inputs[:, :1], axis=1)
  law = np.arange(1, 13) ** (power - 1.0)
  assert abs(np.bincount(first, minlength=12) / 8000 - law / law.sum()).max() < 0.03


def test_mqar_labels_stand_at_the_queries():
  task = build_task("mqar", vocab=64, length=32, pairs=8, random_non_queries=False)
  batch = task.training_rows(0, 300)
  rng = np.random.default_rng(0)
  for inputs, targets, weights in zip(batch["inputs"], batch["targets"], batch["weights"]):
    keys, values = inputs[0:16:2], inputs[1:16:2]
    assert len(set(keys)) == len(set(values)) == 8
    assert 1 <= keys.min() <= keys.max() < 32 <= values.min() <= values.max() < 64
    answer = dict(zip(keys.tolist(), values.tolist()))
    places = np.flatnonzero(inputs[16:]) + 16
    assert (places % 2 == 0).all()
    assert sorted(inputs[places]) == sorted(keys)
    assert [answer[key] for key in inputs[places].tolist()] == targets[places].tolist()
    assert np.flatnonzero(weights).tolist() == np.flatnonzero(targets).tolist() == places.tolist()
    # the reference row reads the same way
    theirs, labels, _ = reference_mqar(rng, 64, 32, 8, 0.01)
    answer = dict(zip(theirs[0:16:2].tolist(), theirs[1:16:2].tolist()))
    places = np.flatnonzero(labels != -100)
    assert [answer[key] for key in theirs[places].tolist()] == labels[places].tolist()


def test_mqar_fills_what_is_no_query_at_random():
  plain, filled = (
    build_task("mqar", vocab=64, length=32, random_non_queries=flag).training_rows(0, 2000) for flag in (False, True)
  )
  empty = plain["inputs"] == 0
  assert np.array_equal(plain["inputs"][~empty], filled["inputs"][~empty])
  assert np.array_equal(plain["targets"], filled["targets"])
  shares = np.bincount(filled["inputs"][empty], minlength=64) / empty.sum()
  assert abs(shares - 1 / 64).max() < 0.005


def test_mqar_mixture_pads_rows_to_one_length():
  task = build_task("mqar", vocab=64, length=32, mixture=((16, 2, 1.0), (32, 8, 3.0)))
  batch = task.training_rows(0, 4000)
  short = batch["lengths"] == 16
  assert set(batch["lengths"].tolist()) == {16, 32}
  assert abs(short.mean() - 0.25) < 0.03
  assert batch["inputs"][short][:, 16:].max() == 0
  assert (batch["weights"][short].sum(1) == 2).all()
  assert (batch["weights"][~short].sum(1) == 8).all()
  assert batch["weights"][short][:, 16:].max() == 0


def test_mqar_evaluates_the_sizes_asked_for():
  task = build_task("mqar", vocab=256, batch=4, eval_sizes=((16, 4), (64, 8)), eval_rows=8)
  sets = task.eval_sets()
  assert list(sets) == ["length_16_pairs_4", "length_64_pairs_8"]
  for (name, run), (length, pairs) in zip(sets.items(), task.eval_sizes):
    batches = list(run())
    assert sum(len(batch["inputs"]) for batch in batches) == 8, name
    assert all(batch["inputs"].shape[1] == length for batch in batches)
    assert all((batch["weights"].sum(1) == pairs).all() for batch in batches)
