"""Pairs of documents from files like the official ones, which are too large to keep here."""

import numpy as np
import pytest

from data.retrieval import FILES
from data.task import build_task
from tests.refused import refused


@pytest.fixture
def folder(tmp_path):
  for split, many in (("train", 10), ("validation", 3), ("test", 5)):
    lines = [f"{i % 2}.0\t{i}\t{i + 1}\ttext {i} of {split}\tother {'x' * i}" for i in range(many)]
    (tmp_path / FILES[split]).write_text("\n".join(lines) + ("\n" if split == "train" else ""))
  return tmp_path


def build(folder, **fields):
  return build_task("retrieval", dir=str(folder), **{"batch": 4, "length": 12} | fields)


def test_pairs_are_read_with_their_labels(folder):
  task = build(folder)
  batch = task.take("test", np.arange(4))
  assert {key: x.shape for key, x in batch.items()} == {
    "inputs": (4, 2, 12),
    "targets": (4,),
    "weights": (4,),
    "lengths": (4, 2),
  }
  assert batch["targets"].tolist() == [0, 1, 0, 1]
  assert batch["lengths"].tolist() == [[12, 6], [12, 7], [12, 8], [12, 9]]
  assert bytes(batch["inputs"][2, 0].astype(np.uint8)) == b"text 2 of te"
  assert bytes(batch["inputs"][2, 1].astype(np.uint8)) == b"other xx" + bytes(4)
  # all first texts have more than 12 bytes, and "other " with more than six x three of the second ones
  assert task.describe() | {"sha256": ""} == {
    **{"task": "Retrieval", "batch": 4, "length": 12, "seed": 0, "train": 10, "validation": 3, "test": 5, "sha256": ""},
    **{"documents": 36, "cut": 18 + 3},
  }
  assert task.notice == "21 of 36 documents are longer than data.length=12 bytes and lose their end"
  assert not build(folder, length=99).notice


def test_an_epoch_has_every_pair_once_and_is_resumed(folder):
  task = build(folder, batch=5, length=30)
  iterator = task.train()
  epochs = [[next(iterator)["inputs"] for _ in range(2)] for _ in range(2)]
  texts = [{row.tobytes() for batch in epoch for row in batch} for epoch in epochs]
  assert len(texts[0]) == 10
  assert texts[0] == texts[1]
  assert not np.array_equal(epochs[0][0], epochs[1][0])
  again = task.train()
  again.set_state(iterator.get_state())
  assert np.array_equal(next(again)["inputs"], next(iterator)["inputs"])


@pytest.mark.parametrize("line", ["0\t1\t2\tone text", "2\t1\t2\ta\tb", "1\t1\t2\t\tb"])
def test_a_line_that_is_no_pair_is_named(folder, line):
  (folder / FILES["test"]).write_text(f"1\t1\t2\ta\tb\n{line}\n")
  refused("line 2 of 'new_aan_pairs.test.tsv' is no pair", lambda: next(build(folder).eval_sets()["test"]()))


def test_missing_files_are_named_with_their_source(folder):
  (folder / FILES["test"]).unlink()
  message = r"lacks 1 of 3 files: new_aan_pairs.test.tsv \(size not known, no checksum is published\).*lra_release.gz"
  refused(message, lambda: build(folder).describe())
  refused("data.dir='' .*a folder with", lambda: build_task("retrieval").describe())
