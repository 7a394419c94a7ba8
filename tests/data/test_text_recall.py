"""Adding, needles and phonebooks against their protocols: what is asked, where it stands, with what frequency."""

import re
from collections import Counter

import numpy as np
import pytest

from data import needle, phonebook
from data.task import build_task


def texts(batch):
  """The text of each row, and the part of it that is scored."""
  for inputs, targets, weights in zip(batch["inputs"], batch["targets"], batch["weights"]):
    end = int(np.flatnonzero(weights)[-1]) + 1
    assert bytes(inputs[:end].astype(np.uint8)) == b"\n" + bytes(targets[: end - 1].astype(np.uint8))
    yield bytes(targets[:end].astype(np.uint8)).decode(), bytes(targets[weights > 0].astype(np.uint8)).decode()


def test_adding_sums_the_two_marked_numbers():
  batch = build_task("adding", length=20).training_rows(0, 20000)
  numbers, marks = batch["inputs"][..., 0], batch["inputs"][..., 1]
  assert (marks[:, :10].sum(1) == 1).all()
  assert (marks[:, 10:].sum(1) == 1).all()
  assert abs((numbers * marks).sum(1) - batch["targets"][:, 0]).max() < 1e-6
  shares = marks.mean(0)
  assert abs(shares - 0.1).max() < 5 * np.sqrt(0.09 / 20000)
  # the usual baseline: always 1
  assert abs(np.square(batch["targets"] - 1).mean() - 1 / 6) < 0.006
  assert abs(np.quantile(numbers, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 0.01


def test_a_needle_is_asked_for_and_stands_once_in_the_text():
  task = build_task("needle", length=512)
  for text, answer in texts(task.training_rows(0, 100)):
    assert len(text) == 512
    assert re.findall(r"The code is (\d{5}). Keep it: (\d{5})", text) == [(answer, answer)]
    assert text.endswith(f"\nWhat is the code? The code is {answer}")
    assert answer[0] != "0"
    without = text.replace(f"The code is {answer}. Keep it: {answer}. ", "")
    assert without.startswith(needle.FILLER.decode())


def test_needles_stand_at_their_depths_and_training_has_all_of_them():
  task = build_task("needle", length=2048, eval_depths=(0, 30, 100))
  sets = task.eval_sets()
  assert list(sets) == ["length_2048_depth_0", "length_2048_depth_30", "length_2048_depth_100"]
  for depth in (0, 30, 100):
    for text, _ in texts(task.evaluation_rows((2048, depth), 0, 3)):
      assert abs(text.index("The code") / 1980 - depth / 100) < 0.03
  places = [text.index("The code") / 2000 for text, _ in texts(task.training_rows(0, 1000))]
  assert abs(np.mean(places) - 0.5) < 5 * np.sqrt(1 / 12 / 1000)
  first = Counter(answer[0] for _, answer in texts(task.training_rows(0, 1000)))
  assert set(first) == set("123456789")


def test_one_of_several_needles_is_asked_for():
  task = build_task("needle", length=700, keys=4)
  asked = []
  for text, answer in texts(task.training_rows(0, 300)):
    codes = re.findall(r"The code of ([A-Z]) is (\d{5}). Keep it: (\d{5})", text)
    assert len({name for name, *_ in codes}) == 4
    assert all(a == b for _, a, b in codes)
    name = re.search(r"What is the code of ([A-Z])\?", text)[1]
    asked.append([each for each, *_ in codes].index(name))
    assert {name: code for name, code, _ in codes}[name] == answer
  assert abs(np.bincount(asked) / 300 - 0.25).max() < 5 * np.sqrt(0.1875 / 300)


@pytest.mark.parametrize("asked", ["end", "start"])
def test_a_phonebook_has_distinct_names_and_asks_for_one(asked):
  task = build_task("phonebook", entries=12, shortest=3, asked=asked)
  sizes, places = [], []
  for text, answer in texts(task.training_rows(0, 400)):
    lines = text.split("\n")
    if asked == "start":
      assert lines[-1].startswith(lines.pop(0))
    book, after = lines[:-3], lines[-3:]
    assert all(re.fullmatch(r"[A-Z][a-z]+ [A-Z][a-z]+: [6-9]\d{9}", line) for line in lines)
    assert len({line.split(":")[0] for line in book}) == len(book)
    # the examples do not give the answer away
    assert len(set(after)) == 3
    assert set(after) <= set(book)
    assert after[-1].endswith(f": {answer}")
    sizes.append(len(book))
    places.append(book.index(after[-1]) / (len(book) - 1))
  assert set(sizes) == set(range(3, 13))
  assert abs(np.mean(places) - 0.5) < 0.1


def test_names_are_distinct_and_a_book_of_all_of_them_fits():
  assert (len(set(phonebook.FIRST)), len(set(phonebook.LAST))) == (64, 64)
  rows = build_task("phonebook", entries=4096, eval_rows=1).validation_rows(0, 1)
  (text, _), *_ = texts(rows)
  assert len(set(text.split("\n"))) == 4096
