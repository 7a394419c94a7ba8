"""ListOps against its definition: values, lengths, and the frequency of everything that is drawn."""

import numpy as np
import pytest

from data import draws, listops
from data.listops import CLOSE, MED, MIN, SM
from data.task import build_task

OPERATORS = {MIN: min, MIN + 1: max, MED: lambda values: int(np.median(values)), SM: lambda values: sum(values) % 10}


def parse(tokens):
  """The value, the number of arguments of each operator and its depth, by a stack."""
  stack, arguments, depths = [[]], [], []
  for token in tokens:
    if token == CLOSE:
      operator, *values = stack.pop()
      arguments.append(len(values))
      depths.append(len(stack))
      stack[-1].append(OPERATORS[operator](values))
    elif token >= MIN:
      stack.append([token])
    else:
      stack[-1].append(token - 1)
  ((value,),) = stack
  return value, arguments, depths


@pytest.fixture(scope="module", params=["train", "test"])
def published(request):
  task = build_task("listops")
  return task.sample(task.seed, request.param, 0, 1500)


def test_values_are_those_of_the_expressions(published):
  for inputs, target, length in zip(published["inputs"][:300], published["targets"], published["lengths"]):
    value, _, depths = parse(inputs[:length].tolist())
    assert value == target
    assert max(depths) <= 9
    assert not inputs[length:].any()
  small = build_task("listops", length=80, shortest=10, longest=70).training_rows(0, 2000)
  for inputs, target, length in zip(small["inputs"], small["targets"], small["lengths"]):
    assert parse(inputs[:length].tolist())[0] == target
    assert 10 < length < 70


def test_lengths_have_the_published_statistics(published):
  """Accepted trees: mean 1038 tokens, 5, 50 and 95 % at 539, 958 and 1798."""
  lengths = published["lengths"]
  assert lengths.min() > 500
  assert lengths.max() < 2000
  assert abs(lengths.mean() - 1038) < 4 * lengths.std() / np.sqrt(1500)
  for share, expected, room in ((5, 539, 15), (50, 958, 60), (95, 1798, 45)):
    assert abs(np.percentile(lengths, share) - expected) < room


def test_one_tree_in_twelve_is_accepted():
  """8.3 % of all trees; a quarter of them have an operator at the root, and only these are grown."""
  _, _, sizes = listops.expressions(draws.bits(0, "test", 0, 3000, 6000), 2000)
  share = ((sizes > 500) & (sizes < 2000)).mean() / 4
  assert abs(share - 0.083) < 4 * np.sqrt(0.33 * 0.67 / 3000) / 4


def test_operators_arguments_and_digits_are_uniform():
  """Of trees that are short enough to be whole, so that no length is chosen."""
  tokens, _, sizes = listops.expressions(draws.bits(1, "test", 0, 20000, 3 * 30), 30)
  # two arguments, both digits: the root's number of arguments and the third power of the digits' share
  whole = sizes > 0
  flat = np.mean([size == 4 for size in sizes])
  assert abs(flat - 0.75**2 / 9) < 5 * np.sqrt(0.0625 / 20000)
  roots = np.bincount(tokens[whole, 0], minlength=16)[MIN:CLOSE] / whole.sum()
  assert abs(roots - 1 / 4).max() < 5 * np.sqrt(0.1875 / whole.sum())
  two = tokens[sizes == 4][:, 1:3]
  assert abs(np.bincount(two.ravel(), minlength=11)[1:] / two.size - 0.1).max() < 5 * np.sqrt(0.09 / two.size)


def test_a_set_comes_back_in_order_and_a_stream_does_not():
  small = dict(length=120, shortest=20, longest=100)
  task = build_task("listops", train_rows=10, **small)
  rows = task.training_rows(7, 8)["inputs"]
  assert np.array_equal(rows[3:], task.training_rows(0, 5)["inputs"])
  fresh = build_task("listops", train_rows=0, **small).training_rows(0, 30)["inputs"]
  assert np.array_equal(fresh[:10], task.training_rows(0, 10)["inputs"])
  assert len({row.tobytes() for row in fresh}) == 30


def test_validation_and_test_rows_are_others_and_the_same_for_every_seed():
  small = dict(length=120, shortest=20, longest=100, batch=50, eval_rows=200)
  sets = {
    (seed, split): np.concatenate([batch["inputs"] for batch in rows()])
    for seed in (0, 1)
    for split, rows in build_task("listops", seed=seed, **small).eval_sets().items()
  }
  assert {split for _, split in sets} == {"validation", "test"}
  assert all(np.array_equal(sets[0, split], sets[1, split]) for split in ("validation", "test"))
  train = build_task("listops", **small).training_rows(0, 200)["inputs"]
  parts = [{row.tobytes() for row in part} for part in (train, sets[0, "validation"], sets[0, "test"])]
  assert [len(part) for part in parts] == [200] * 3
  assert len(set.union(*parts)) == 600
  assert build_task("listops").eval_rows == 2000
