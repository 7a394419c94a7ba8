"""Parity and modular arithmetic: exact answers, sizes and frequencies, and what is asked within and beyond training."""

import numpy as np
import pytest

from data.task import build_task

SIGNS = {1: "+", 2: "-", 3: "*", 5: "(", 6: ")"}


def read(tokens, zero):
  """The expression as Python would write it; everything but the = at its end."""
  assert tokens[-1] == 4
  return "".join(str(token - zero) if token >= zero else SIGNS[token] for token in tokens[:-1].tolist())


def cut(batch):
  """Each row's tokens, targets and weights up to its size; what follows must be padding."""
  for inputs, targets, weights, size in zip(*(batch[key] for key in ("inputs", "targets", "weights", "lengths"))):
    assert not inputs[size:].any()
    assert not targets[size:].any()
    assert not weights[size:].any()
    yield inputs[:size], targets[:size], weights[:size]


@pytest.mark.parametrize("vocab", [3, 6])
def test_parity_is_the_sum_of_the_symbols(vocab):
  for inputs, targets, weights in cut(build_task("parity", vocab=vocab).training_rows(0, 500)):
    assert 1 <= inputs.min() <= inputs.max() < vocab
    assert targets.tolist() == [0] * (len(inputs) - 1) + [(inputs - 1).sum() % (vocab - 1) + 1]
    assert weights.tolist() == [0] * (len(inputs) - 1) + [1]


def test_parity_scores_every_token_when_told_to():
  last, everything = (build_task("parity", score=score).training_rows(0, 100) for score in ("last", "all"))
  assert np.array_equal(last["inputs"], everything["inputs"])
  for inputs, targets, weights in cut(everything):
    assert targets.tolist() == [(inputs[: i + 1] - 1).sum() % 2 + 1 for i in range(len(inputs))]
    assert weights.all()


def test_symbols_sizes_and_answers_of_parity_are_uniform():
  batch = build_task("parity").training_rows(0, 20000)
  sizes = np.bincount(batch["lengths"], minlength=40) / 20000
  assert not sizes[:2].any()
  assert abs(sizes[2:] - 1 / 38).max() < 5 * np.sqrt(1 / 38 / 20000)
  assert abs((batch["inputs"][:, 0] == 1).mean() - 0.5) < 5 * 0.5 / np.sqrt(20000)
  # chance is 1/2: neither the answer alone nor the last token tells anything
  answers = batch["targets"].max(1)
  last = np.take_along_axis(batch["inputs"], batch["lengths"][:, None] - 1, axis=1)[:, 0]
  for given in (last == 1, last == 2):
    assert abs((answers[given] == 1).mean() - 0.5) < 5 * 0.5 / np.sqrt(given.sum())


@pytest.mark.parametrize("times, vocab", [(True, 10), (True, 7), (False, 10)])
def test_arithmetic_is_what_python_computes(times, vocab):
  task = build_task("modular_arithmetic", vocab=vocab, times=times)
  signs = set()
  for inputs, targets, weights in cut(task.training_rows(0, 500)):
    text = read(inputs, 5)
    signs |= set(text[1::2])
    assert targets[-1] == 5 + eval(text) % (vocab - 5)
    assert weights.tolist() == [0] * (len(inputs) - 1) + [1]
  assert signs == ({"+", "-", "*"} if times else {"+", "-"})


def test_arithmetic_scores_the_value_so_far_at_each_digit():
  for inputs, targets, weights in cut(build_task("modular_arithmetic", score="all").training_rows(0, 200)):
    text = read(inputs, 5)
    assert np.flatnonzero(weights).tolist() == [*range(0, len(text), 2), len(text)]
    assert targets[weights > 0].tolist() == [5 + eval(text[: i + 1]) % 5 for i in range(0, len(text), 2)] + [
      targets[-1]
    ]


@pytest.mark.parametrize("times", [True, False])
def test_arithmetic_with_brackets_is_what_python_computes(times):
  task = build_task("modular_arithmetic", vocab=12, brackets=True, times=times)
  signs = set()
  for inputs, targets, weights in cut(task.training_rows(0, 500)):
    text = read(inputs, 7)
    signs |= set(text)
    assert targets.tolist() == [0] * len(text) + [7 + eval(text) % 5]
    assert weights.tolist() == [0] * len(text) + [1]
  assert signs == set("01234+-()" + "*" * times)


def test_expressions_of_every_size_have_the_published_form():
  task = build_task("modular_arithmetic", vocab=12, brackets=True, times=False, shortest=2, length=6)
  forms = {}
  for inputs, _, _ in cut(task.training_rows(0, 2000)):
    text = read(inputs, 7)
    forms.setdefault(len(text), set()).add("".join("d" if letter.isdigit() else letter for letter in text))
  assert forms == {1: {"d"}, 2: {"-d"}, 3: {"(d)"}, 4: {"(-d)"}, 5: {"(d+d)", "(d-d)"}}


def test_the_place_of_the_outer_operator_is_uniform():
  task = build_task("modular_arithmetic", vocab=12, brackets=True, times=False, shortest=9, length=9)
  places = []
  for inputs, _, _ in cut(task.training_rows(0, 4000)):
    text = read(inputs, 7)
    depth = np.cumsum([(letter == "(") - (letter == ")") for letter in text])
    # a minus after a bracket is a sign
    outer = [i for i in range(2, 8) if depth[i] == 1 and text[i] in "+-" and text[i - 1] not in "(+-"]
    places.append(outer[0] - 1)
  # 8 tokens, two brackets and the operator leave 5: the left has 1 … 4 of them
  shares = np.bincount(places, minlength=5)[1:] / 4000
  assert len(shares) == 4
  assert abs(shares - 1 / 4).max() < 5 * np.sqrt(1 / 4 * 3 / 4 / 4000)


@pytest.mark.parametrize("name, even", [("parity", False), ("modular_arithmetic", True)])
def test_evaluation_goes_beyond_the_training_length(name, even):
  task = build_task(name, batch=64, score="all", eval_sizes=((2, 39), (40, 256), (64, 64)), eval_rows=128)
  sets = task.eval_sets()
  assert list(sets) == ["length_2_39", "length_40_256", "length_64_64"]
  for run, (low, high) in zip(sets.values(), task.eval_sizes):
    batch = {key: np.concatenate([part[key] for part in run()]) for key in next(run())}
    assert batch["inputs"].shape == (128, high)
    assert low <= batch["lengths"].min() <= batch["lengths"].max() <= high
    assert not even or not (batch["lengths"] % 2).any()
    # the answer alone is scored, whatever training scores
    assert np.array_equal(np.argmax(batch["weights"], axis=1), batch["lengths"] - 1)
    assert batch["weights"].sum() == 128


def test_without_lengths_of_its_own_an_evaluation_has_those_of_training():
  task = build_task("parity", batch=8, length=12, eval_sizes=(), eval_rows=16)
  ((name, run),) = task.eval_sets().items()
  lengths = np.concatenate([batch["lengths"] for batch in run()])
  assert name == "validation"
  assert len(lengths) == 16
  assert 2 <= lengths.min() <= lengths.max() <= 12
