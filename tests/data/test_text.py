"""Text tasks: every byte once, documents apart, streams unbroken, what goes wrong said in one line."""

import bz2
import gzip
import hashlib
import itertools
import json
import lzma
import platform
import time

import numpy as np
import pytest

from data import packing, text_file
from data.hold_out import hold_out
from data.packing import Document, Epochs
from data.task import build_task
from tests.refused import refused


@pytest.fixture
def corpus(tmp_path):
  """Forty documents whose bytes say which document they are and where in it."""
  for i in range(40):
    (tmp_path / f"{i:02}.txt").write_bytes(bytes([i]) + bytes(range(100, 100 + i + 5)))
  return tmp_path


def rows_of(texts, **kwargs):
  kwargs = {"length": 8, "batch": 4, "seed": 0, "stateful": False} | kwargs
  return Epochs([bytes(text) for text in texts], **kwargs)


def test_targets_are_the_next_bytes_and_no_document_predicts_another():
  texts = [[i] + list(range(100, 106)) for i in range(20)]
  rows = rows_of(texts)
  batch = rows(0, rows.rows)
  for inputs, targets, weights, reset in zip(*(batch[key] for key in ("inputs", "targets", "weights", "reset"))):
    assert inputs[1:].tolist() == targets[:-1].tolist()
    assert reset.tolist() == (inputs < 100).tolist()
    assert weights.tolist() == (targets >= 100).tolist()


def test_an_epoch_visits_the_text_once():
  rows = rows_of([range(200)])
  for epoch in range(3):
    inputs = rows(epoch * rows.rows, rows.rows)["inputs"]
    seen = np.bincount(inputs.ravel(), minlength=200)
    # less than a row is skipped at the front, and the last row may overlap the one before it
    assert (seen >= 1).sum() >= 200 - 2 * 8
    assert (seen > 1).sum() < 8
  first, second = rows(0, rows.rows)["inputs"], rows(rows.rows, rows.rows)["inputs"]
  assert {row.tobytes() for row in first} != {row.tobytes() for row in second}


def test_rows_reach_across_epochs():
  rows = rows_of([range(50)])
  whole = rows(0, 3 * rows.rows)
  parts = [rows(i, 1) for i in range(3 * rows.rows)]
  for key in whole:
    assert np.array_equal(whole[key], np.concatenate([part[key] for part in parts]))


def test_stateful_rows_go_on_where_the_last_batch_ended():
  texts = [[i] + list(range(100, 120)) for i in range(30)]
  rows = rows_of(texts, stateful=True)
  batches = [rows(step * 4, 4) for step in range(2 * rows.steps + 1)]
  for step, (before, after) in enumerate(itertools.pairwise(batches), 1):
    if step % rows.steps:
      assert before["targets"][:, -1].tolist() == after["inputs"][:, 0].tolist()
      assert after["reset"][:, 0].tolist() == (after["inputs"][:, 0] < 100).tolist()
    else:
      assert after["reset"][:, 0].all()
  assert batches[0]["reset"][:, 0].all()
  lanes = [np.concatenate([batch["inputs"][lane] for batch in batches[: rows.steps]]) for lane in range(4)]
  documents = [set(lane[lane < 100].tolist()) for lane in lanes]
  assert not any(a & b for a, b in itertools.combinations(documents, 2))


@pytest.mark.parametrize(
  "size,stateful,fits", [(8, False, False), (9, False, True), (43, True, False), (44, True, True)]
)
def test_a_text_is_long_enough_or_refused(size, stateful, fits):
  if fits:
    assert rows_of([bytes(size)], stateful=stateful)(0, 4)["inputs"].shape == (4, 8)
  else:
    with pytest.raises(ValueError, match=f"training text has {size} bytes.*needs {size + 1}: lower data.length=8"):
      rows_of([bytes(size)], stateful=stateful)


@pytest.mark.parametrize("stateful,eval_length", [(False, 0), (False, 20), (True, 0)])
def test_evaluation_scores_every_byte_of_a_document_but_its_first_once(corpus, stateful, eval_length):
  task = build_task(
    "text_file", dir=str(corpus), batch=3, length=8, validation=0.3, stateful=stateful, eval_length=eval_length
  )
  batches = list(task.eval_sets()["validation"]())
  assert {batch["inputs"].shape for batch in batches} == {(3, eval_length or 8)}
  documents = task.splits["validation"]
  assert sum(batch["weights"].sum() for batch in batches) == sum(len(d.text) - 1 for d in documents)
  text = np.concatenate([batch["inputs"].ravel() for batch in batches])
  expected = b"".join(d.text for d in documents)
  assert text.astype(np.uint8).tobytes()[: len(expected) - 1] == expected[:-1]


def test_splits_hold_everything_once(corpus):
  splits = build_task("text_file", dir=str(corpus)).splits
  names = [d.name for documents in splits.values() for d in documents]
  assert len(names) == len(set(names)) == 40
  size = {split: sum(len(d.text) for d in documents) for split, documents in splits.items()}
  assert 0 < size["validation"] <= 1.1 * 0.05 * sum(size.values())


def split_of(texts, share):
  """The splits, the share that is held out, and whether a copy is on both sides."""
  splits = hold_out([Document(str(i), text) for i, text in enumerate(texts)], share)
  train, validation = ([d.text for d in splits[split]] for split in ("train", "validation"))
  assert sum(map(len, train + validation)) == sum(map(len, texts))
  return train, validation, sum(map(len, validation)) / sum(map(len, texts)), set(train) & set(validation)


def texts_of(sizes, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.integers(0, 256, size, np.uint8).tobytes() for size in sizes]


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.95])
@pytest.mark.parametrize(
  "texts",
  [
    texts_of([100] * 400),
    [text for i, text in enumerate(texts_of([100] * 100)) for _ in range(1 + i % 9)],
    [text for i, text in enumerate(texts_of([50] * 60)) for _ in range(300 if i < 2 else 1)],
    [*(text for text in texts_of([40] * 10) for _ in range(4)), *texts_of([400] * 5, seed=1)],
    texts_of((10 ** np.linspace(0, 5, 300)).astype(int)),
    [*texts_of([1] * 50), *texts_of([100] * 100)],
  ],
  ids=["equal", "copies", "two many times", "copies and large", "sizes", "single bytes"],
)
def test_the_share_is_right_and_no_copy_is_on_both_sides(texts, share):
  _, validation, achieved, straddling = split_of(texts, share)
  assert share / 1.1 - 0.003 <= achieved <= 1.1 * share + 0.003
  assert not {text for text in straddling if len(text) > 1}
  assert any(len(text) > 1 for text in validation)


@pytest.mark.parametrize(
  "texts,share",
  [([b"a sentence."] * 1000, 0.05), ([b"one", b"two"], 0.5), ([b"12345678"], 0.01), (texts_of([90] * 2), 0.95)],
)
def test_nothing_is_refused_where_there_is_enough(texts, share):
  train, validation, _, straddling = split_of(texts, share)
  assert max(map(len, train)) > 1
  assert max(map(len, validation)) > 1
  assert not straddling


def test_a_document_rarely_changes_sides_when_others_come():
  texts = texts_of([100] * 500)
  before, after = (set(split_of(texts[:end], 0.2)[1]) for end in (400, 500))
  assert len(before ^ (after & set(texts[:400]))) <= 12


def test_nothing_to_predict_is_refused_before_training(tmp_path, monkeypatch):
  monkeypatch.setattr(text_file, "hold_out", lambda documents, share: {"train": documents, "validation": documents})
  for i in range(20):
    (tmp_path / f"{i}.txt").write_text("x")
  task = build_task("text_file", dir=str(tmp_path), length=4)
  for start in (task.train, task.eval_sets, task.describe):
    refused("the train split of task 'TextFile' has nothing to predict: .* 20 documents", start)


def test_the_end_of_a_single_document_is_held_out(tmp_path):
  (tmp_path / "a.md").write_bytes(bytes(range(100)))
  task = build_task("text_file", files=str(tmp_path / "a.md"), validation=0.2, length=8)
  assert [task.splits[split][0].text for split in ("train", "validation")] == [bytes(range(80)), bytes(range(80, 100))]


def test_endings_count_in_any_case_and_links_are_followed_once(tmp_path):
  inside, outside = tmp_path / "inside", tmp_path / "outside"
  (inside / "deep").mkdir(parents=True)
  outside.mkdir()
  for name in ("inside/A.TXT", "outside/c.Txt", "inside/deep/d.txt", "inside/e.md"):
    (tmp_path / name).write_text(name)
  (inside / "b.JSONL").write_text('{"text": "of a line"}')
  (inside / "link").symlink_to(outside)
  (inside / "again").symlink_to(outside)
  (inside / "deep" / "up").symlink_to(inside)
  (inside / "f.txt").symlink_to(inside / "A.TXT")
  (inside / "gone.txt").symlink_to(tmp_path / "nothing")
  (outside / "g.txt").write_text("outside/g.txt")
  for files in ("", "**/*.[tTjJ]*"):
    documents = [d for path in text_file.find(str(inside), files) for d in text_file.parse(path)]
    texts = ["inside/A.TXT", "inside/deep/d.txt", "of a line", "outside/c.Txt", "outside/g.txt"]
    assert sorted(d.text.decode() for d in documents) == texts


@pytest.mark.parametrize("pack, suffix", [(gzip.compress, ".gz"), (bz2.compress, ".BZ2"), (lzma.compress, ".xz")])
def test_packed_files_are_unpacked(tmp_path, pack, suffix):
  (tmp_path / f"a.txt{suffix}").write_bytes(pack(b"plain text"))
  (tmp_path / f"b.jsonl{suffix}").write_bytes(pack(b'{"text": "of a line"}'))
  documents = [d.text for path in text_file.find(str(tmp_path), "") for d in text_file.parse(path)]
  assert documents == [b"plain text", b"of a line"]


@pytest.mark.parametrize(
  "name, words",
  [("a.txt.gz", "cannot unpack .*a.txt.gz"), ("a.ZIP", "is no text but a .zip file"), ("a.tar.gz", "but a .tar file")],
)
def test_what_cannot_be_unpacked_is_named(tmp_path, name, words):
  (tmp_path / name).write_bytes(b"x" * 99)
  refused(words, lambda: build_task("text_file", files=str(tmp_path / name)).describe())


def test_text_may_stand_under_another_key(tmp_path):
  lines = [json.dumps({"content": f"document {i}", "id": "x"}) for i in range(30)]
  (tmp_path / "a.jsonl").write_text("\n".join(lines))
  splits = build_task("text_file", dir=str(tmp_path), key="content", length=4, validation=0.2).splits
  assert sum(len(documents) for documents in splits.values()) == 30
  with pytest.raises(
    ValueError, match=r"no text under the key 'text'; it has text under \['content', 'id'\]: set data.key"
  ):
    build_task("text_file", dir=str(tmp_path)).describe()


def test_json_lines_are_documents(tmp_path):
  lines = [json.dumps({"text": f"document {i} é", "id": i}) for i in range(30)]
  (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
  splits = build_task("text_file", dir=str(tmp_path), files="*.jsonl", length=4, validation=0.2).splits
  texts = {d.text.decode() for documents in splits.values() for d in documents}
  assert texts == {f"document {i} é" for i in range(30)}


@pytest.mark.parametrize(
  "make,kwargs,message",
  [
    (lambda p: None, {}, "needs text: give data.files"),
    (lambda p: None, {"dir": "{}/none"}, "no file matches '.*none': check data.dir"),
    (lambda p: None, {"dir": "{}"}, "has no .txt or .jsonl file: name others with data.files"),
    (lambda p: (p / "a.txt").write_text(""), {"dir": "{}"}, "hold no text: every file is empty"),
    (lambda p: (p / "a.txt").write_text("x"), {"dir": "{}", "files": "b*"}, "no file matches '.*b[*]'"),
    (lambda p: (p / "a.txt").write_text("x"), {"dir": "{}"}, "1 documents of 1 bytes are too little to hold out"),
    (
      lambda p: (p / "a.jsonl").write_text('{"text": "x"}\n{"txt": 1}'),
      {"dir": "{}"},
      "a.jsonl:2 has no text under the key 'text'",
    ),
    (lambda p: (p / "a.jsonl").write_text("[1]"), {"dir": "{}"}, "a.jsonl:1 is no JSON object but a list"),
    (lambda p: (p / "a.jsonl").write_text("{"), {"dir": "{}"}, "a.jsonl:1 is no JSON .Expecting"),
    (lambda p: (p / "a.JSONL").write_text("[" * 99999), {"dir": "{}"}, "a.JSONL:1 is no JSON .maximum recursion"),
    (
      lambda p: (p / "a.jsonl").write_text('{"text": "ab\\ud800c"}'),
      {"dir": "{}"},
      r"a.jsonl:1: character 2 of its text is '\\ud800', half of a surrogate pair",
    ),
    (lambda p: None, {"dir": "~nobody-here/x"}, "data.dir='~nobody-here/x' is no path"),
    (lambda p: None, {"dir": "{}", "files": "a\0b"}, "is no path|no file matches"),
    (
      lambda p: (p / "a.txt").write_text("x" * 50),
      {"dir": "{}", "length": 64},
      "training text has 48 bytes.* needs 65",
    ),
  ],
)
def test_bad_input_is_named_in_one_line(tmp_path, make, kwargs, message):
  make(tmp_path)
  kwargs = {key: value.format(tmp_path) if isinstance(value, str) else value for key, value in kwargs.items()}
  with pytest.raises(ValueError, match=message) as error:
    build_task("text_file", **kwargs).train()
  assert "\n" not in str(error.value)


def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
  (tmp_path / "a.txt").write_text("x")

  def refuse(path):
    raise PermissionError(13, "Permission denied", str(path))

  monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
  with pytest.raises(ValueError, match="cannot read '.*a.txt': Permission denied; check"):
    build_task("text_file", dir=str(tmp_path)).describe()


def test_a_share_outside_its_range_is_refused():
  refused("data.validation=1.5 .*above 0", build_task, "text_file", dir="x", validation=1.5)


def test_describe_counts_and_checks_the_text(corpus):
  task = build_task("text_file", dir=str(corpus))
  facts = task.describe()
  assert facts["documents"] == facts["paths"] == 40
  assert facts["bytes"] == sum(path.stat().st_size for path in corpus.glob("*.txt"))
  again = build_task("text_file", dir=str(corpus)).describe()
  assert facts == again
  (corpus / "00.txt").write_bytes(b"other")
  assert build_task("text_file", dir=str(corpus)).describe()["sha256"] != facts["sha256"]


def test_the_standard_library_is_split_by_the_paths_of_its_files():
  task = build_task("bytes")
  facts = task.describe()
  assert facts["python"] == platform.python_version()
  assert facts["train"]["bytes"] + facts["validation"]["bytes"] == facts["bytes"] > 5e6
  assert 0.01 < facts["validation"]["bytes"] / facts["bytes"] < 0.1
  assert 4 < facts["train"]["unigram_bits_per_byte"] < 5.5
  for split, documents in task.splits.items():
    for name, _ in documents:
      assert (int(hashlib.md5(name.encode()).hexdigest(), 16) % 20 == 0) == (split == "validation")
      assert not {"test", "tests", "site-packages"} & set(name.split("/"))


def test_text_goes_to_tokens_and_back():
  task = build_task("bytes")
  tokens = task.encode("def f(é):")
  assert tokens.dtype == np.int32
  assert task.decode(tokens) == "def f(é):".encode()
  assert task.decode([100, 101]) == b"de"


def test_batches_are_made_faster_than_any_small_model_eats_them():
  task = build_task("bytes")
  rows = Epochs([d.text for d in task.splits["train"]], task.length, task.batch, 0, False)
  rows(0, 8)
  seconds = []
  for step in range(50):
    start = time.perf_counter()
    rows(8 * step, 8)
    seconds.append(time.perf_counter() - start)
  assert 8 * task.length / np.median(seconds) > 2e6


def test_streams_mark_where_documents_start():
  packed = packing.stream([b"ab", b"c", b"def"])
  assert packed.tokens.tobytes() == b"abcdef"
  assert packed.starts.tolist() == [True, False, True, True, False, False]


def test_own_files_for_validation_and_test_are_evaluated_whole_and_not_trained_on(tmp_path):
  for name in ("a.txt", "b.txt", "valid.txt", "deep/test.txt"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(f"the text of {name}")
  task = build_task("text_file", dir=str(tmp_path), validation_files="valid.txt", test_files="deep", length=8)
  texts = {split: [d.text.decode() for d in documents] for split, documents in task.splits.items()}
  assert texts == {
    "train": ["the text of a.txt", "the text of b.txt"],
    "validation": ["the text of valid.txt"],
    "test": ["the text of deep/test.txt"],
  }
  assert set(task.eval_sets()) == {"validation", "test"}
  facts = task.describe()
  assert (facts["validation_files"], facts["test_files"], facts["paths"]) == ("valid.txt", "deep", 4)
  assert "validation_share" not in facts


def test_all_of_a_text_can_be_evaluated(tmp_path):
  (tmp_path / "a.txt").write_text("ab")
  task = build_task("text_file", dir=str(tmp_path), validation=1)
  assert [batch["weights"].sum() for batch in task.eval_sets()["validation"]()] == [1]
  assert task.describe()["validation"]["bytes"] == 2
  refused("nothing to train on: all of its text is for evaluation", task.train)


@pytest.mark.parametrize(
  "settings, message",
  [
    (dict(files="a.txt", validation_files="*.txt"), "data.files='a.txt' names only files that are for validation"),
    (dict(validation_files="a.txt", test_files="a*"), "by data.validation_files and by data.test_files"),
    (dict(validation_files="c*"), "no file matches '.*c[*]': check .* data.validation_files='c[*]'"),
    (dict(test_files="empty.txt"), "data.test_files='empty.txt' .* hold no text"),
  ],
)
def test_own_files_that_do_not_fit_are_named(tmp_path, settings, message):
  for name, text in (("a.txt", "aaaaaaaaaaaaaaaaaaaaaaaa"), ("b.txt", "bbbbbbbbbbbbbbbbbbbbbbb"), ("empty.txt", "")):
    (tmp_path / name).write_text(text)
  refused(message, lambda: build_task("text_file", dir=str(tmp_path), length=4, **settings).describe())
