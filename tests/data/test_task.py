"""What holds for every task: building by name, fresh deterministic batches, shares of processes, exact resumption."""

import dataclasses
import json

import numpy as np
import pytest

from data import pipeline
from data.task import available, build_task
from tests import child
from tests.refused import refused

# small settings of every task that needs no files
SMALL = {
  "bytes": {"batch": 4, "length": 32},
  "bytes stateful": {"batch": 4, "length": 32, "stateful": True},
  "selective_copying": {"batch": 4, "length": 24, "tokens": 3, "eval_rows": 6},
  "selective_copying stages": {"batch": 4, "length": 24, "tokens": 3, "stages": ((0, 8), (2, 24)), "eval_rows": 6},
  "listops": {"batch": 4, "length": 120, "shortest": 20, "longest": 100, "train_rows": 0, "eval_rows": 6},
  "listops set": {"batch": 4, "length": 120, "shortest": 20, "longest": 100, "train_rows": 10, "eval_rows": 6},
  "copying": {"batch": 4, "length": 24, "tokens": 3, "eval_rows": 6},
  "associative_recall": {"batch": 4, "length": 12, "vocab": 16, "eval_rows": 6},
  "word_problem": {"batch": 4, "length": 12, "group": "S3", "eval_sizes": ((12, 12), (13, 40)), "eval_rows": 6},
  "induction_heads": {"batch": 4, "length": 32, "eval_lengths": (16, 64), "eval_rows": 8},
  "induction_heads stages": {"batch": 4, "length": 32, "stages": ((0, 8, 3), (2, 32, 1)), "eval_rows": 8},
  "mqar": {"batch": 4, "length": 32, "vocab": 64, "eval_rows": 6},
  "mqar stages": {"batch": 4, "length": 32, "vocab": 64, "stages": ((0, 1), (2, 4)), "eval_rows": 6},
  "mqar mixture": {"batch": 4, "length": 32, "vocab": 64, "mixture": ((16, 2, 1.0), (32, 8, 3.0)), "eval_rows": 6},
  "parity": {"batch": 4, "length": 12, "eval_sizes": ((2, 12), (13, 40)), "eval_rows": 6},
  "modular_arithmetic": {"batch": 4, "length": 12, "eval_sizes": ((2, 12), (13, 40)), "eval_rows": 6},
  "adding": {"batch": 4, "length": 24, "eval_rows": 6},
  "noise": {"batch": 4, "length": 24, "size": 9, "eval_rows": 6},
  "noise images": {"batch": 4, "length": 16, "inputs": "features", "size": 3, "labels": 5, "eval_rows": 6},
  "needle": {"batch": 4, "length": 160, "eval_depths": (0, 100), "eval_rows": 6},
  "phonebook": {"batch": 4, "entries": 5, "shortest": 3, "eval_entries": (4, 8), "eval_rows": 6},
  "formal_language": {"batch": 4, "language": "set", "longest": 9, "eval_sizes": ((1, 9), (10, 12)), "eval_rows": 6},
  "mad": {"batch": 4, "problem": "fuzzy_in_context_recall", "length": 32, "train_rows": 10, "eval_rows": 6},
  "mad stream": {"batch": 4, "problem": "compression", "train_rows": -1, "eval_rows": 6},
  "regbench": {"batch": 4, "length": 64, "strings": (2, 5), "train_rows": 10, "eval_rows": 6},
  "mqar_forms": {"batch": 4, "length": 32, "vocab": 64, "eval_rows": 6},
  "mqar_forms compositional": {"batch": 4, "length": 32, "vocab": 64, "form": "compositional", "eval_rows": 6},
  "continuous_mqar": {"batch": 4, "values": 16, "size": 4, "pairs": 6, "eval_rows": 6},
  "pathfinder": {"batch": 4, "contour": 6, "train_rows": 6, "eval_rows": 6},
  "ruler": {"batch": 4, "length": 48, "vocab": 64, "keys": 2, "eval_lengths": (48, 96), "eval_rows": 6},
  "modular_arithmetic brackets": {"batch": 4, "length": 12, "vocab": 12, "brackets": True, "eval_rows": 6},
}


@pytest.fixture(scope="module", params=SMALL)
def task(request):
  return build_task(request.param.split()[0], **SMALL[request.param])


def take(iterator, count):
  return [next(iterator) for _ in range(count)]


def same(left, right):
  return left.keys() == right.keys() and all(np.array_equal(left[key], right[key]) for key in left)


def test_every_task_without_files_is_here():
  assert {name.split()[0] for name in SMALL} == set(available()) - {
    "text_file",
    "tiny_shakespeare",
    "image_sequence",
    "arrays",
    "fasta",
    "named",
    "retrieval",
    "tokens",
    "sounds",
    "pixels",
    "species",
  }


def test_batches_have_one_form(task):
  batches = take(task.train(), 5)
  shape = (task.batch, task.length)
  wide = () if task.features is None else (task.features,)
  for batch in batches:
    assert {key: (x.shape, x.dtype) for key, x in batch.items()} == {
      key: (x.shape, x.dtype) for key, x in batches[0].items()
    }
    assert batch["inputs"].shape == (*shape, *wide)
    assert batch["weights"].shape == (shape if task.head in ("lm", "autoencoder") else shape[:1])
    assert batch["targets"].shape == (*batch["weights"].shape, *((1,) if task.head == "regression" else ()))
    assert (batch["inputs"].dtype, batch["weights"].dtype) == (np.float32 if wide else np.int32, np.float32)
    assert batch["targets"].dtype == (np.float32 if task.head == "regression" else np.int32)
    for key, size in (("inputs", task.vocab), ("targets", task.classes or task.vocab)):
      if batch[key].dtype == np.int32:
        assert 0 <= batch[key].min() <= batch[key].max() < size
    assert batch["weights"].sum() > 0
  assert not same(batches[0], batches[1])


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(task):
  first, again = next(task.train()), next(task.train())
  assert same(first, again)
  other = dataclasses.replace(task, seed=1)
  assert not same(first, next(other.train()))


def test_processes_share_the_batch_one_process_would_make(task):
  for step, whole in enumerate(take(task.train(), 4)):
    for count in (2, 4):
      parts = [take(task.train(i, count), step + 1)[step] for i in range(count)]
      assert same(whole, {key: np.concatenate([part[key] for part in parts]) for key in whole})


def test_a_restored_iterator_goes_on_exactly(task):
  iterator = task.train()
  take(iterator, 2)
  state = json.loads(json.dumps(iterator.get_state()))
  expected = take(iterator, 3)
  fresh = task.train()
  fresh.set_state(state)
  assert all(same(a, b) for a, b in zip(expected, take(fresh, 3)))
  # an iterator that is already under way can be set back
  iterator.set_state(state)
  assert same(next(iterator), expected[0])


def test_evaluation_is_finite_repeatable_and_shared_by_processes(task):
  for name, run in task.eval_sets().items():
    batches = list(run())
    assert batches
    assert all(same(a, b) for a, b in zip(batches, run()))
    shares = [list(task.eval_sets(i, 2)[name]()) for i in range(2)]
    assert len(shares[0]) == len(shares[1]) == len(batches)
    for whole, *parts in zip(batches, *shares):
      assert same(whole, {key: np.concatenate([part[key] for part in parts]) for key in whole})


def test_every_evaluation_set_has_something_to_score(task):
  for name, run in task.eval_sets().items():
    assert sum(batch["weights"].sum() for batch in run()) > 0, name


def test_evaluation_does_not_depend_on_the_seed(task):
  other = dataclasses.replace(task, seed=1)
  for name, run in task.eval_sets().items():
    assert same(next(run()), next(other.eval_sets()[name]()))


def test_describe_is_json(task):
  facts = task.describe()
  assert json.loads(json.dumps(facts))["task"] == type(task).__name__
  assert facts == task.describe()


def test_a_wrong_name_lists_what_exists():
  refused("no task is called 'mqr'.*did you mean 'mqar'.*--list tasks", build_task, "mqr")
  refused("no task is called '0'; choose from .*induction_heads", build_task, "0")
  assert type(build_task("data.mqar.MQAR")).__name__ == "MQAR"


def test_a_wrong_argument_names_the_fields():
  refused("task 'mqar' has no field 'pars'.*did you mean 'pairs'.*'power'", build_task, "mqar", pars=3)


def test_a_batch_that_does_not_divide_over_processes_is_refused():
  with pytest.raises(ValueError, match="data.batch=4 does not divide over 3 processes: use a multiple of 3"):
    build_task("mqar", batch=4, vocab=128).train(0, 3)
  refused("process_index=2", pipeline.share, 4, 2, 2)


@pytest.mark.parametrize(
  "name,kwargs,message",
  [
    ("bytes", {"length": 0}, "data.length=0 .*at least 1"),
    ("mqar", {"batch": 0}, "data.batch=0 .*at least 1"),
    ("mqar", {"length": 64, "pairs": 17}, "data.pairs=17 .* 1 … length // 4 = 16 pairs"),
    ("mqar", {"length": 63}, "data.length=63 .*even"),
    ("mqar", {"vocab": 64, "length": 64}, "data.vocab=64 .*above the length 64"),
    ("mqar", {"stages": ((1, 2),)}, "data.stages=.*first steps 0"),
    ("mqar", {"mixture": ((128, 4, 1.0),)}, "data.mixture=.*no length above data.length=64"),
    ("induction_heads", {"score": "some"}, "data.score='some' .*'last', 'triggers', 'all'"),
    ("induction_heads", {"length": 8, "triggers": 4}, "data.length=8 .*at least 2 · triggers"),
    ("induction_heads", {"stages": ((0, 48, 1),)}, "data.stages=.*divide data.length=256"),
    ("selective_copying", {"length": 8}, "data.length=8 .*at least 2 · tokens = 32"),
    ("selective_copying", {"vocab": 2}, "data.vocab=2 .*at least 3"),
    ("mqar", {"stages": (0, 1)}, r"data.stages=\(0, 1\) .*each of them \(a whole number, a whole number\)"),
    ("mqar", {"mixture": ((16, 2),)}, "data.mixture=.*a whole number, a whole number, a finite number"),
    ("mqar", {"power": float("nan")}, "data.power=nan .*a finite number"),
    ("mqar", {"random_non_queries": 1}, "data.random_non_queries=1 .*true or false"),
    ("mqar", {"batch": True}, "data.batch=True .*a whole number"),
    ("mqar", {"length": 64.0}, "data.length=64.0 .*a whole number"),
    ("induction_heads", {"eval_lengths": 64}, "data.eval_lengths=64 .*each of them a whole number"),
    ("parity", {"eval_sizes": (1, 5)}, "data.eval_sizes=.*a whole number, a whole number"),
    ("text_file", {"files": 3}, "data.files=3 .*text"),
    ("image_sequence", {"permutation_seed": 2**32}, r"data.permutation_seed=4294967296 .*2\^32 - 1"),
    ("listops", {"length": 1000}, "data.longest=2000 .* to data.length . 1 = 1001"),
    ("word_problem", {"group": "S9"}, "data.group='S9' .*of at most 2520 elements"),
    ("word_problem", {"group": "Q8"}, "data.group='Q8' .*S, A or Z and a number"),
    ("word_problem", {"group": "S3", "vocab": 6}, "data.vocab=6 .*above the 6 elements of S3"),
    ("associative_recall", {"length": 7}, "data.length=7 .*even"),
    ("associative_recall", {"vocab": 9, "keys": 7}, "data.keys=7 .*vocab - 3 = 6"),
    ("image_sequence", {"dataset": "cifar"}, "data.dataset='cifar' .*'mnist', 'cifar10'"),
    ("formal_language", {"language": "parety"}, "data.language='parety' .*did you mean 'parity'"),
    ("formal_language", {"language": "solve_equation", "longest": 2}, "data.longest=2 .*no question of 1 … 2 tokens"),
    ("formal_language", {"language": "reverse_string", "length": 20}, "data.length=20 .*at least 80"),
    ("formal_language", {"eval_sizes": ((5, 4),)}, "data.eval_sizes="),
    ("parity", {"vocab": 2}, "data.vocab=2 .*'Parity'.* at least 3"),
    ("parity", {"batch": 0}, "data.batch=0 .*at least 1"),
    ("parity", {"score": "some"}, "data.score='some' .*'last', 'all'"),
    ("parity", {"shortest": 0}, "data.shortest=0 .*1 … data.length=39"),
    ("parity", {"shortest": 40}, "data.shortest=40 .*1 … data.length=39"),
    ("parity", {"eval_sizes": ((9, 8),)}, r"data.eval_sizes=\(\(9, 8\),\) .*rows \(smallest, largest\)"),
    ("parity", {"eval_sizes": ((0, 8),)}, r"data.eval_sizes=\(\(0, 8\),\) "),
    ("modular_arithmetic", {"vocab": 6}, "data.vocab=6 .*at least 7"),
    ("modular_arithmetic", {"brackets": True, "vocab": 8}, "data.vocab=8 .*at least 9"),
    ("modular_arithmetic", {"brackets": True, "vocab": 12, "score": "all"}, "data.score='all' .*brackets"),
    ("modular_arithmetic", {"shortest": 5, "length": 5}, "data.shortest=5 .*with a size of this task"),
    ("modular_arithmetic", {"eval_sizes": ((7, 7),)}, r"data.eval_sizes=\(\(7, 7\),\) .*with a size of this task"),
    ("mqar_forms", {"form": "forgeting"}, "data.form='forgeting' .*choose from"),
    ("mqar_forms", {"updates": 5}, "data.updates=5 .*0 … pairs = 4"),
    ("mqar_forms", {"form": "compositional", "pairs": 5}, "data.pairs=5 .*square"),
    ("mqar_forms", {"form": "compositional", "pairs": 16}, "data.length=64 .*at least 96"),
    ("ruler", {"problem": "nia"}, "data.problem='nia' .*choose from"),
    ("ruler", {"queries": 2}, "data.queries=2 .*at most keys = 1"),
    ("ruler", {"problem": "common_words", "length": 300}, "data.length=300 .*at least 314"),
    ("ruler", {"haystack": "needles", "vocab": 100}, "data.vocab=100 .*at least"),
  ],
)
def test_a_field_that_does_not_fit_is_named(name, kwargs, message):
  refused(message, build_task, name, **kwargs)


# the shortest questions are few, and are asked in both
@pytest.mark.parametrize(
  "name, fields",
  [
    *((name, {}) for name in ("mqar", "induction_heads", "selective_copying")),
    *((name, {"shortest": 38}) for name in ("parity", "modular_arithmetic")),
  ],
)
def test_training_and_evaluation_rows_are_different(name, fields):
  task = build_task(name, **fields)
  rows = task.training_rows(0, 64)["inputs"], task.validation_rows(0, 64)["inputs"]
  assert not {row.tobytes() for row in rows[0]} & {row.tobytes() for row in rows[1]}


def test_building_a_task_imports_no_heavy_library():
  code = (
    "import sys; from data.task import build_task; build_task('mqar'); build_task('bytes'); "
    "print([m for m in ('jax', 'grain', 'tensorflow_datasets', 'tensorflow') if m in sys.modules])"
  )
  assert child.python("-c", code).strip() == "[]"


def test_the_last_evaluation_batch_is_filled_up_with_rows_of_weight_zero():
  rows = lambda first, count: {"x": np.arange(first, first + count), "weights": np.ones(count, np.float32)}
  whole = list(pipeline.InOrder(rows, 5, 4, 0, 1)())
  assert [batch["x"].tolist() for batch in whole] == [[0, 1, 2, 3], [4, 0, 0, 0]]
  assert whole[1]["weights"].tolist() == [1, 0, 0, 0]
  # a process whose share lies beyond the end
  assert [batch["weights"].sum() for batch in pipeline.InOrder(rows, 5, 4, 1, 2)()] == [2, 0]
