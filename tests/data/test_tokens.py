"""Tokens in files: what was written is what is read, in any cut; work goes on where it stopped; blends have shares."""

import json
import re
import sys

import numpy as np
import pytest

from data import packing, token_shards
from data.task import build_task
from data.tokens import BLOCK, Blend
from scripts import tokenize_text
from tests.data import pairs
from training import evaluate, losses

TEXT = "the rain in ☃ andorra is an error on a thread\n"


@pytest.fixture(scope="module", autouse=True)
def library():
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(sys.modules, "tokenizers", pairs.LIBRARY)
    tokenize_text.opened.cache_clear()
    yield
    tokenize_text.opened.cache_clear()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
  """Forty documents of different lengths."""
  folder = tmp_path_factory.mktemp("corpus")
  for number in range(40):
    (folder / f"{number:02}.txt").write_text(f"{number} " + TEXT * (1 + number % 5))
  return build_task("text_file", dir=str(folder), validation=0.2)


def make(corpus, folder, size=700):
  path = pairs.write(folder.parent / "tokenizer") / "tokenizer.json"
  return tokenize_text.make(folder, corpus, path, workers=1, size=size)


@pytest.fixture(scope="module")
def folder(corpus, tmp_path_factory):
  folder = tmp_path_factory.mktemp("made") / "tokens"
  make(corpus, folder)
  return folder


def whole(corpus, split):
  """The split in memory: every document between two end tokens."""
  ids = [[pairs.END, *pairs.Pairs().encode(d.text.decode(), False).ids, pairs.END] for d in corpus.splits[split]]
  starts = np.zeros(sum(map(len, ids)), bool)
  starts[np.cumsum([0] + [len(one) for one in ids[:-1]])] = True
  return packing.Stream(np.concatenate([np.array(one, np.uint16) for one in ids]), starts)


def same(left, right):
  return left.keys() == right.keys() and all(np.array_equal(left[key], right[key]) for key in left)


def test_rows_are_those_of_the_text_across_files(corpus, folder):
  shards, expected = token_shards.read(folder).open("train"), whole(corpus, "train")
  assert len(token_shards.read(folder).facts["splits"]["train"]) > 5
  assert shards.size == len(expected.tokens)
  places = np.array([0, 17, 333, shards.size - 900, shards.size - 801])
  assert same(shards.rows(places, 800), expected.rows(places, 800))


def test_the_size_of_files_changes_no_row(corpus, folder, tmp_path):
  make(corpus, tmp_path / "tokens", size=10**9)
  one, many = (build_task("tokens", dir=str(path), length=32) for path in (tmp_path / "tokens", folder))
  assert len(token_shards.read(tmp_path / "tokens").facts["splits"]["train"]) == 1
  for _, left, right in zip(range(6), one.train(), many.train()):
    assert same(left, right)


def test_rows_are_shared_resumed_and_evaluated_once(corpus, folder):
  task = build_task("tokens", dir=str(folder), length=32, batch=4)
  assert task.vocab == pairs.SIZE
  batches = [batch for _, batch in zip(range(4), task.train())]
  halves = [[batch for _, batch in zip(range(4), task.train(i, 2))] for i in (0, 1)]
  for batch, *parts in zip(batches, *halves):
    assert same(batch, {key: np.concatenate([part[key] for part in parts]) for key in batch})
  iterator = task.train()
  next(iterator)
  state, expected = json.loads(json.dumps(iterator.get_state())), next(iterator)
  iterator.set_state(state)
  assert same(next(iterator), expected)
  expected = whole(corpus, "validation")
  found = list(task.eval_sets()["validation"]())
  assert sum(batch["weights"].sum() for batch in found) == len(expected.tokens) - expected.starts.sum()
  scored = np.concatenate([batch["targets"][batch["weights"] > 0] for batch in found])
  np.testing.assert_array_equal(scored, expected.tokens[1:][~expected.starts[1:]])
  lanes = build_task("tokens", dir=str(folder), length=32, batch=4, stateful=True).train()
  first, second = next(lanes), next(lanes)
  np.testing.assert_array_equal(first["targets"][:, -1], second["inputs"][:, 0])


def test_bits_are_those_of_the_texts_bytes(corpus, folder):
  """A model that finds all tokens alike needs log2 of the vocabulary for each, over the bytes of the text."""
  task = build_task("tokens", dir=str(folder))
  held = corpus.splits["validation"]
  expected = whole(corpus, "validation")
  targets = len(expected.tokens) - len(held)
  size = sum(len(document.text) for document in held)
  assert losses.bytes_per_target(task, "validation") == size / targets
  uniform = {"loss": (np.log(pairs.SIZE) * targets, targets), "accuracy": (0, targets)}
  values = losses.averages(uniform, task.metrics, losses.bytes_per_target(task, "validation"))
  assert values["bits_per_byte"] == pytest.approx(np.log2(pairs.SIZE) * targets / size)
  assert evaluate.preview(task).startswith("validation: ")


def test_work_goes_on_and_mends_what_is_damaged(corpus, tmp_path, capsys):
  folder = tmp_path / "tokens"
  before = make(corpus, folder)
  rows = token_shards.read(folder).open("train").rows(np.arange(0, 900, 100), 90)
  (folder / "train-00001.json").unlink()
  (folder / "train-00002.starts.npy").write_bytes(b"x" * 200)
  (folder / "tokens.json").unlink()
  capsys.readouterr()
  assert make(corpus, folder) == before
  assert re.match(r"writing 2 files of tokens into .*; \d+ are there already\n", capsys.readouterr().out)
  assert same(token_shards.read(folder).open("train").rows(np.arange(0, 900, 100), 90), rows)


def test_a_tokenizer_with_nothing_before_a_text_leaves_its_first_token_out():
  one = tokenize_text.opened.__wrapped__(pairs.Path("tokenizer.json"))
  assert one.end is None
  assert tokenize_text.encode(one, b"the") == ([257, ord("e")], 1)
  one.end = pairs.END
  assert tokenize_text.encode(one, b"the") == ([pairs.END, 257, ord("e"), pairs.END], 3)
  one.begin = 5
  assert tokenize_text.encode(one, b"\xff")[1] == 1


def test_a_blend_has_its_shares_in_every_block_and_reads_each_source_in_order():
  class Numbers:
    def __init__(self, name):
      self.name = name

    def __call__(self, first, count):
      return {"x": np.array([[self.name, first]])}

  blend = Blend([Numbers(0), Numbers(1), Numbers(2)], [1, 2, 4], seed=0)
  assert blend.counts.tolist() == [146, 293, 585]
  assert blend.counts.sum() == BLOCK
  rows = blend(0, 2 * BLOCK)["x"]
  for source, count in enumerate(blend.counts):
    own = rows[rows[:, 0] == source, 1]
    np.testing.assert_array_equal(own, np.arange(2 * count))
    assert (rows[:BLOCK, 0] == source).sum() == count
  np.testing.assert_array_equal(rows[700:1500], blend(700, 800)["x"])


def test_folders_are_blended_and_evaluated_apart(corpus, folder, tmp_path):
  make(corpus, tmp_path / "other")
  task = build_task("tokens", blend=((str(folder), 3.0), (str(tmp_path / "other"), 1.0)), batch=8, length=16)
  assert set(task.eval_sets()) == {"validation_tokens", "validation_other"}
  assert next(task.train())["inputs"].shape == (8, 16)
  assert set(task.bytes_per_target) == {"train", "validation_tokens", "validation_other"}


def break_header(folder):
  (folder / "train-00000.tokens.npy").write_bytes(b"no array")


def break_size(folder):
  np.save(folder / "train-00000.tokens.npy", np.zeros(3, np.uint16))


def break_token(folder):
  array = np.load(folder / "train-00000.tokens.npy")
  np.save(folder / "train-00000.tokens.npy", array + 60000)


@pytest.mark.parametrize(
  "damage, message",
  [
    (break_header, "train-00000.tokens.npy cannot be read"),
    (break_size, "has 3 tokens of .* mends it"),
    (break_token, "has a token 60.* but its tokenizer has 267"),
    (lambda folder: (folder / "tokens.json").unlink(), "has no tokens.json: ./dev tokenize"),
    (lambda folder: (folder / "tokens.json").write_text("[]"), "tokens.json cannot be read"),
    (lambda folder: (folder / "tokens.json").write_text('{"form": 9}'), "tokens.json is of form 9"),
  ],
)
def test_damaged_folders_are_named(corpus, tmp_path, damage, message):
  make(corpus, tmp_path / "tokens", size=10**9)
  damage(tmp_path / "tokens")
  with pytest.raises(ValueError, match=message):
    next(build_task("tokens", dir=str(tmp_path / "tokens")).train())


@pytest.mark.parametrize(
  "settings, message",
  [
    (dict(), "data.dir='' .*in its place"),
    (dict(dir="FOLDER", blend=(("FOLDER", 1.0),)), "data.dir=.*in its place"),
    (dict(dir="FOLDER", vocab=200), "data.vocab=200 .*at least the tokenizer's 267"),
    (dict(blend=(("FOLDER", -1.0),)), "data.blend=.*shares above 0"),
    (dict(blend=(("FOLDER", 1.0), ("FOLDER", 1.0))), "folders of different names"),
    (dict(blend=(("FOLDER", 1.0),), stateful=True), "data.stateful=True .*rows of a blend do not go on"),
    (dict(blend=(("FOLDER", 1.0), ("FOLDER/../tokens", 1e-6))), "less than 1/1024"),
    (dict(dir="FOLDER", length=100_000), "the training text has .* tokens, but a row needs 100001"),
  ],
)
def test_settings_that_do_not_fit_are_named(folder, settings, message):
  put = lambda value: value.replace("FOLDER", str(folder)) if isinstance(value, str) else value
  blend = tuple((put(name), share) for name, share in settings.pop("blend", ()))
  settings = {key: put(value) for key, value in settings.items()}
  with pytest.raises(ValueError, match=message):
    build_task("tokens", **settings, blend=blend).train()


def test_the_command_line_names_what_is_wrong(corpus, folder, tmp_path, capsys, mistaken):
  text = f"configs/text.py:dir={corpus.dir},validation=0.2"
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "notes").touch()
  tokenizer = str(pairs.write(tmp_path / "tokenizer"))
  for arguments, message in (
    (["--config", "configs/mqar.py", "--out", str(tmp_path / "new")], "is no text but MQAR"),
    (["--config", text, "--out", str(tmp_path / "full")], "holds something else"),
    (["--config", "configs/bytes.py", "--out", str(folder)], "holds the tokens of another text or tokenizer"),
  ):
    mistaken(tokenize_text.main, [*arguments, "--tokenizer", tokenizer, "--jobs", "1"], message)
  arguments = ["--config", text, "--tokenizer", str(tmp_path), "--out", str(tmp_path / "new")]
  mistaken(tokenize_text.main, arguments, "is no tokenizer's file")
  assert (
    tokenize_text.main(["--config", text, "--tokenizer", tokenizer, "--out", str(tmp_path / "new"), "--jobs", "1"]) == 0
  )
  said = capsys.readouterr().out
  assert "bytes a token" in said
  assert "missing" not in said
