"""Copying, associative recall and word problems against their definitions: what stands where, with what frequency."""

import itertools

import numpy as np
import pytest

from data import word_problem
from data.task import build_task


def test_copying_puts_the_data_at_the_front_and_asks_at_the_end():
  batch = build_task("copying", length=30, tokens=4, vocab=10).training_rows(0, 5000)
  inputs, targets = batch["inputs"], batch["targets"]
  assert np.array_equal(inputs[:, :4], targets[:, -4:])
  assert not inputs[:, 4:-4].any()
  assert (inputs[:, -4:] == 9).all()
  assert (batch["weights"] == (np.arange(30) >= 26)).all()
  shares = np.bincount(inputs[:, :4].ravel(), minlength=10)[1:9] / 20000
  assert abs(shares - 1 / 8).max() < 5 * np.sqrt(1 / 8 / 20000)


def test_associative_recall_asks_for_a_key_that_has_been_there():
  task = build_task("associative_recall", length=22, vocab=21, keys=8)
  batch = task.training_rows(0, 20000)
  inputs, targets = batch["inputs"], batch["targets"]
  keys, values = inputs[:, 0:20:2], inputs[:, 1:20:2]
  assert (keys >= 1).all()
  assert (keys <= 8).all()
  assert (values >= 9).all()
  assert not inputs[:, 20].any()
  assert (batch["weights"] == (np.arange(22) == 21)).all()
  # a key has one value a row, and the target is that of the key asked for
  same = keys[:, :, None] == keys[:, None, :]
  assert (values[:, :, None] == values[:, None, :])[same].all()
  asked = keys == inputs[:, 21:]
  assert asked.any(1).all()
  assert (np.where(asked, values, 0).max(1) == targets[:, 21]).all()
  for tokens, many in ((keys, 8), (targets[:, 21], 12)):
    shares = np.bincount(tokens.ravel())[-many:] / tokens.size
    assert abs(shares - 1 / many).max() < 6 * np.sqrt(1 / many / tokens.size)
  # uniform among the keys that are there, however often: the first pair's key is asked with the mean of 1 / distinct
  distinct = np.array([len(set(row)) for row in keys.tolist()])
  assert abs((inputs[:, 21] == keys[:, 0]).mean() - (1 / distinct).mean()) < 5 * np.sqrt(0.2 * 0.8 / 20000)


@pytest.mark.parametrize(
  "name,order,abelian",
  [
    ("S3", 6, False),
    ("A4", 12, False),
    ("A5", 60, False),
    ("S5", 120, False),
    ("Z60", 60, True),
    ("A4xZ5", 60, False),
    ("S1", 1, True),
    ("Z2xZ2", 4, True),
  ],
)
def test_tables_are_groups(name, order, abelian):
  table = word_problem.multiplication(name)
  assert table.shape == (order, order)
  assert word_problem.group_order(name) == order
  assert (table[0] == np.arange(order)).all()
  assert (table[:, 0] == np.arange(order)).all()
  # a Latin square, so that there are inverses
  assert (np.sort(table, axis=0) == np.arange(order)[:, None]).all()
  a, b, c = np.random.default_rng(0).integers(0, order, (3, 5000))
  assert (table[table[a, b], c] == table[a, table[b, c]]).all()
  assert (table == table.T).all() == abelian


def test_a_product_of_permutations_is_one_after_the_other():
  elements = list(itertools.permutations(range(4)))
  table = word_problem.multiplication("S4")
  for a, b in itertools.product(range(24), repeat=2):
    assert elements[table[a, b]] == tuple(elements[b][i] for i in elements[a])


def test_a_simple_group_is_its_own_commutator():
  """A5 is perfect, which makes its word problem hard; S5's commutators are A5, those of S3 are Z3."""

  def commutators(name):
    table = word_problem.multiplication(name)
    inverse = np.argmin(table, axis=1)
    a, b = np.indices(table.shape)
    return set(table[table[inverse[a], inverse[b]], table[a, b]].ravel().tolist())

  assert [len(commutators(name)) for name in ("A5", "S5", "S3", "Z60")] == [60, 60, 3, 1]


@pytest.mark.parametrize("score", ["all", "last"])
def test_answers_are_the_products_so_far(score):
  task = build_task("word_problem", group="S3", length=9, shortest=4, score=score)
  batch = task.training_rows(0, 400)
  table = word_problem.multiplication("S3")
  assert task.vocab == 7
  for inputs, targets, weights, length in zip(*(batch[key] for key in ("inputs", "targets", "weights", "lengths"))):
    product = 0
    for t in range(length):
      product = table[product, inputs[t] - 1]
      if weights[t]:
        assert targets[t] == product + 1
    assert not inputs[length:].any()
    assert weights.sum() == (length if score == "all" else 1)
    assert weights[length - 1] == 1


def test_elements_and_answers_are_uniform_and_sizes_as_asked():
  task = build_task("word_problem", group="A5", length=12)
  batch = task.training_rows(0, 6000)
  there = batch["weights"] > 0
  for tokens in (batch["inputs"][there], batch["targets"][there]):
    shares = np.bincount(tokens, minlength=61)[1:] / len(tokens)
    assert abs(shares - 1 / 60).max() < 6 * np.sqrt(1 / 60 / len(tokens))
  assert set(batch["lengths"].tolist()) == set(range(2, 13))
  sets = build_task("word_problem").eval_sets()
  assert list(sets) == ["length_128_128", "length_512_512"]
