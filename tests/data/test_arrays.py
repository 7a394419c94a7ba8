"""Arrays from every kind of file: the same sequences, splits that keep groups together, and bad ones named."""

import gzip
import json
import os
import shutil
import struct
import wave

import numpy as np
import pytest

from data.task import build_task
from mistake import Mistake
from tests.refused import refused
from training import losses


@pytest.fixture
def rng():
  return np.random.default_rng(0)


def save(path, rng, n=40, t=6, f=2, **more):
  x = rng.normal(3, 2, (n, t, f))
  y = np.arange(n) % 3
  np.savez(path, x=x, y=y, **more)
  return x, y


def rows_of(task, split):
  return task.batch_at(task.rows[split])


def test_labels_of_an_npz_are_split_and_normalised(tmp_path, rng):
  x, y = save(tmp_path / "a.npz", rng)
  task = build_task("arrays", dir=str(tmp_path), files="a.npz")
  assert (task.features, task.classes, task.length, task.vocab, task.head) == (2, 3, 6, None, "classifier")
  assert {split: len(rows) for split, rows in task.rows.items()} == {"train": 32, "validation": 4, "test": 4}
  used = np.concatenate([task.rows[split][:, 1] for split in ("train", "validation", "test")])
  assert sorted(used) == list(range(40))
  part = rows_of(task, "train")
  assert abs(part["inputs"].mean(axis=(0, 1))).max() < 1e-5
  assert abs(part["inputs"].std(axis=(0, 1)) - 1).max() < 1e-5
  which = task.rows["test"][:, 1]
  mean, deviation = task.scale
  np.testing.assert_allclose(rows_of(task, "test")["inputs"] * deviation + mean, x[which], rtol=1e-4, atol=1e-5)
  assert rows_of(task, "test")["targets"].tolist() == y[which].tolist()
  assert json.loads(json.dumps(task.describe()))["train rows"] == 32
  iterator = task.train()
  state = iterator.get_state()
  first = next(iterator)
  iterator.set_state(state)
  assert all(np.array_equal(a, b) for a, b in zip(first.values(), next(iterator).values()))
  other = build_task("arrays", dir=str(tmp_path), files="a.npz", seed=1)
  assert not np.array_equal(next(other.train())["inputs"], first["inputs"])
  assert np.array_equal(other.rows["test"], task.rows["test"])


def test_groups_stay_together_and_a_split_of_the_files_own_stands(tmp_path, rng):
  groups = np.repeat(np.arange(10), 4)
  split = np.array(["train"] * 30 + ["val"] * 6 + ["test"] * 4)
  save(tmp_path / "a.npz", rng, g=groups, s=split)
  task = build_task("arrays", files=str(tmp_path / "a.npz"), groups="g", validation=0.2, test=0.3)
  parts = [set(groups[task.rows[name][:, 1]]) for name in ("train", "validation", "test")]
  assert [len(part) for part in parts] == [5, 2, 3]
  assert sum(map(len, parts)) == 10
  own = build_task("arrays", files=str(tmp_path / "a.npz"), split="s")
  assert own.rows["validation"][:, 1].tolist() == list(range(30, 36))


def test_nothing_is_held_out_of_training_where_there_is_a_test_part(tmp_path, rng):
  save(tmp_path / "a.npz", rng, s=np.array(["train"] * 36 + ["test"] * 4), v=np.array(["train"] * 40))
  fields = dict(files=str(tmp_path / "a.npz"), validation=0.0)
  task = build_task("arrays", split="s", **fields)
  assert ([*task.eval_sets()], task.rows["train"][:, 1].tolist()) == (["test"], list(range(36)))
  rows = build_task("arrays", split="s", predict="next", length=3, **fields).rows
  assert {split: set(each[:, 1].tolist()) for split, each in rows.items()} == {
    "train": set(range(36)),
    "test": {*range(36, 40)},
  }
  for more in ({}, {"split": "v"}, {"predict": "next", "length": 3}):
    task = build_task("arrays", **fields, **more)
    refused("data.validation=0, but data.files=.*a.npz' has no test split of its own", task.eval_sets, error=Mistake)


def test_every_kind_of_file_gives_the_same_sequences(tmp_path, rng):
  x = rng.integers(0, 255, (30, 8)).astype(np.uint8)
  y = (np.arange(30) % 2).astype(np.uint8)
  np.savez(tmp_path / "a.npz", x=x, y=y)
  table = [[f"c{i}" for i in range(8)] + ["y"], *(map(str, [*row, label]) for row, label in zip(x, y))]
  (tmp_path / "a.csv").write_text("\n".join(",".join(row) for row in table))
  idx = lambda array: struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
  (tmp_path / "a-idx3-ubyte.gz").write_bytes(gzip.compress(idx(x.reshape(30, 2, 4))))
  (tmp_path / "b-idx1-ubyte").write_bytes(idx(y))
  tasks = [
    build_task("arrays", dir=str(tmp_path), files="a.npz"),
    build_task("arrays", dir=str(tmp_path), files="a.csv", inputs=""),
    build_task("arrays", dir=str(tmp_path), files="a-idx3-ubyte.gz", targets="b-idx1-ubyte", layout="pixels"),
  ]
  pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
  columns = {f"c{i}": x[:, i] for i in range(8)} | {"y": y}
  parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
  tasks.append(build_task("arrays", dir=str(tmp_path), files="a.parquet", inputs=""))
  first = rows_of(tasks[0], "train")
  for task in tasks:
    batch = rows_of(task, "train")
    np.testing.assert_allclose(batch["inputs"].reshape(24, 8), first["inputs"].reshape(24, 8), atol=1e-5)
    assert batch["targets"].tolist() == first["targets"].tolist()


def test_ragged_sequences_have_lengths_and_times_make_gaps(tmp_path, rng):
  lengths = 1 + np.arange(20) % 5
  flat = rng.normal(size=(lengths.sum(), 1))
  times = np.concatenate([np.cumsum(rng.random(n)) for n in lengths])
  offsets = np.concatenate([[0], np.cumsum(lengths)])
  np.savez(tmp_path / "a.npz", x=flat, y=np.arange(20) % 2, o=offsets, t=times)
  task = build_task("arrays", files=str(tmp_path / "a.npz"), offsets="o", times="t", unit=0.5, normalise=False)
  batch = rows_of(task, "train")
  assert task.length == 5
  for row, which in enumerate(task.rows["train"][:, 1]):
    n, start = lengths[which], offsets[which]
    assert batch["lengths"][row] == n
    assert batch["inputs"][row, :n, 0].tolist() == flat[start : start + n, 0].astype(np.float32).tolist()
    assert not batch["inputs"][row, n:].any()
    np.testing.assert_allclose(batch["dt"][row, 1:n], np.diff(times[start : start + n]) / 0.5, rtol=1e-5)
  assert (batch["dt"] > 0).all()


def test_a_table_may_have_a_step_a_row(tmp_path):
  rows = ["id,a,b,label,who"]
  for i in range(12):
    rows += [f"s{i},{i}.5,{j},{'up' if i % 2 else 'down'},p{i % 4}" for j in range(1 + i % 3)]
  (tmp_path / "a.csv").write_text("\n".join(rows))
  task = build_task(
    "arrays",
    files=str(tmp_path / "a.csv"),
    inputs="a b",
    targets="label",
    sequence="id",
    groups="who",
    test=0.25,
    validation=0.25,
  )
  assert (task.length, task.features, task.classes) == (3, 2, 2)
  assert task.data.lengths.tolist() == [1, 2, 3] * 4
  assert task.answers.tolist() == [0, 1] * 6


def test_sounds_are_read_with_the_labels_of_their_names(tmp_path):
  for speaker in "ab":
    for digit in range(3):
      for take in range(2):
        with wave.open(str(tmp_path / f"{digit}_{speaker}_{take}.wav"), "wb") as file:
          file.setnchannels(1)
          file.setsampwidth(2)
          file.setframerate(8000)
          file.writeframes(np.full(10 + digit, 1000 * (digit + 1), "<i2").tobytes())
  task = build_task(
    "arrays", dir=str(tmp_path), pattern=r"(?P<label>\d)_(?P<group>.)_.", validation=0.5, test=0.0, normalise=False
  )
  assert (task.length, task.classes) == (12, 3)
  batch = rows_of(task, "train")
  assert batch["lengths"].tolist() == (10 + batch["targets"]).tolist()
  np.testing.assert_allclose(batch["inputs"][:, 0, 0], (batch["targets"] + 1) * 1000 / 2**15)
  assert len(set(task.data.groups[task.rows["train"][:, 1]])) == 1
  with pytest.raises(ValueError, match="12 of 12 names .* do not match data.pattern"):
    build_task("arrays", dir=str(tmp_path), pattern="x(?P<label>.)")


def test_sounds_have_one_rate_whichever_it_is(tmp_path):
  for name, rate in (("0_a", 8000), ("1_a", 8000), ("1_b", 44100)):
    with wave.open(str(tmp_path / f"{name}.wav"), "wb") as file:
      file.setnchannels(1)
      file.setsampwidth(2)
      file.setframerate(rate)
      file.writeframes(bytes(20))
  message = "1_b.wav' has 44,100 samples a second, and '.*0_a.wav' has 8,000; resample"
  fields = dict(dir=str(tmp_path), pattern="(?P<label>.)_.")
  refused(message, build_task, "arrays", **fields, error=Mistake)
  refused(message, lambda: build_task("sounds", dir=str(tmp_path)).splits, error=Mistake)
  (tmp_path / "1_b.wav").unlink()
  assert build_task("arrays", **fields).length == 10


def test_numbers_and_forecasts(tmp_path, rng):
  np.savez(tmp_path / "a.npz", x=rng.normal(size=(20, 5)), y=rng.normal(size=20))
  task = build_task("arrays", files=str(tmp_path / "a.npz"), predict="number")
  assert (task.head, task.classes, rows_of(task, "train")["targets"].shape) == ("regression", None, (16, 1))
  steps = np.arange(100)
  (tmp_path / "a.csv").write_text("\n".join(["load,heat", *(f"{i},{2 * i}" for i in steps)]))
  fields = dict(
    predict="next", inputs="", targets="heat", length=4, horizon=3, normalise=False, validation=0.2, test=0.2
  )
  task = build_task("arrays", files=str(tmp_path / "a.csv"), **fields)
  shutil.copy(tmp_path / "a.csv", tmp_path / "B.CSV")
  assert build_task("arrays", files=str(tmp_path / "B.CSV"), **fields).describe()["sha256"] == task.describe()["sha256"]
  ends = {}
  for split in ("train", "validation", "test"):
    batch = rows_of(task, split)
    # the target's column comes first
    assert batch["targets"][:, 0].tolist() == (batch["inputs"][:, -1, 0] + 6).tolist()
    ends[split] = batch["inputs"][0, 0, 1], batch["targets"][-1, 0] / 2
  assert ends == {"train": (0, 59), "validation": (60, 79), "test": (80, 99)}


def test_forecasts_have_times_and_keep_to_the_splits_of_the_file(tmp_path, rng):
  times = np.cumsum(1 + np.arange(60) % 4)
  split = ["train"] * 20 + ["test"] * 20 + ["train"] * 20
  rows = [f"{time},{i},{2 * i},{part}" for i, (time, part) in enumerate(zip(times, split))]
  (tmp_path / "a.csv").write_text("\n".join(["when,a,b,part", *rows]))
  fields = dict(files=str(tmp_path / "a.csv"), predict="next", inputs="", targets="b", times="when", split="part")
  task = build_task("arrays", **fields, length=3, validation=0.25, normalise=False)
  assert (task.features, task.data.split.tolist()) == (2, ["train", "test", "train"])
  # four steps each, of which the first begin the rows: the last five of each training run are for validation
  firsts = {name: rows[:, 0].tolist() for name, rows in task.rows.items()}
  assert firsts == {
    "train": [*range(12), *range(40, 52)],
    "validation": [15, 16, 55, 56],
    "test": list(range(20, 37)),
  }
  batch = rows_of(task, "test")
  np.testing.assert_allclose(batch["dt"][:, 1:], [np.diff(times[i : i + 3]) for i in range(20, 37)])
  assert batch["targets"][:, 0].tolist() == [2 * (i + 3) for i in range(20, 37)]
  assert (task.describe()["series without a row"], task.notice.count("\n")) == (0, 1)
  x = rng.normal(size=(4, 9))
  np.savez(tmp_path / "a.npz", x=x, s=np.array(["train", "val", "test", "train"]), n=np.array([9, 9, 9, 2]))
  task = build_task("arrays", files=str(tmp_path / "a.npz"), predict="next", split="s", lengths="n", length=3)
  assert {name: set(rows[:, 1].tolist()) for name, rows in task.rows.items()} == {
    "train": {0},
    "validation": {1},
    "test": {2},
  }
  assert task.describe()["series without a row"] == 1
  assert task.notice.splitlines()[1] == "1 of 4 series are too short for a row of 4 steps"


IDLE = {
  "times of whole rows": ("a.csv", dict(times="t"), "data.times='t' has one time a row, and a row is a whole sequence"),
  "offsets of a table": ("a.csv", dict(offsets="t"), "data.offsets='t' is of no use: .*; leave it out"),
  "pixels of a table": ("a.csv", dict(layout="pixels"), "data.layout='pixels' is of no use: .*; leave it out"),
  "sequence of arrays": ("a.npz", dict(sequence="x"), "data.sequence='x' is of no use"),
  "both": ("a.npz", dict(inputs="y", offsets="o", lengths="o"), "data.lengths='o' is of no use: data.offsets says"),
  "a pattern of a file": ("a.npz", dict(pattern="x"), "data.pattern='x' is of no use"),
  "times of sounds": ("", dict(times="t"), "data.times='t' is of no use: data.pattern takes label"),
  "groups of a forecast": ("a.csv", dict(predict="next", groups="t", length=2), "data.groups='t' .*leave it empty"),
  "no input": ("a.csv", dict(predict="next", inputs="a", length=2), "data.targets='y' is forecast, so add it to"),
  "no column": ("a.csv", dict(predict="next", times="T", length=2), "no column data.times='T' .did you mean 't'"),
  "two labels": ("a.csv", dict(sequence="s"), "1 of 4 rows have another data.targets='y' .* the first is row 2"),
  "gaps and times": ("a.csv", dict(sequence="s", times="t", gap=2.0), "data.gap=2.0 .* data.times says"),
  "weights of numbers": ("a.npz", dict(predict="number", balanced=True), "data.balanced=True .* only labels"),
  "no labels": ("", dict(pattern="(?P<group>.)"), "needs a target of each sequence, and data.dir=.* has none"),
  "two numbers a token": ("a.npz", dict(tokens=9), "data.tokens=9, but .* have 2 numbers, and a token is one"),
}


@pytest.mark.parametrize("case", IDLE)
def test_what_a_file_has_no_use_for_is_refused(tmp_path, case):
  files, fields, message = IDLE[case]
  (tmp_path / "a.csv").write_text("t,a,y,s\n0,1,2,p\n1,2,3,p\n2,3,4,q\n3,3,4,q\n")
  np.savez(tmp_path / "a.npz", x=np.ones((4, 3, 2)), y=np.arange(4), o=np.array([0, 2, 4]))
  with wave.open(str(tmp_path / "a.wav"), "wb") as file:
    file.setparams((1, 2, 8000, 0, "NONE", ""))
    file.writeframes(bytes(8))
  inputs = {} if files == "a.npz" else {"inputs": ""}
  refused(message, build_task, "arrays", **{"dir": str(tmp_path), "files": files} | inputs | fields, error=Mistake)


def test_tokens_are_not_normalised(tmp_path, rng):
  np.savez(tmp_path / "a.npz", x=rng.integers(0, 7, (20, 5)), y=np.arange(20) % 2)
  task = build_task("arrays", files=str(tmp_path / "a.npz"), tokens=7)
  assert (task.vocab, task.features, rows_of(task, "train")["inputs"].dtype) == (7, None, np.int32)
  refused("steps are no token of 0 … 4", build_task, "arrays", files=str(tmp_path / "a.npz"), tokens=5)


def test_rare_classes_weigh_more_in_training(tmp_path, rng):
  np.savez(tmp_path / "a.npz", x=rng.normal(size=(100, 3)), y=(np.arange(100) % 10 == 0).astype(int))
  task = build_task("arrays", files=str(tmp_path / "a.npz"), balanced=True)
  part = task.batch_at(task.rows["train"], weigh=True)
  sums = [part["weights"][part["targets"] == label].sum() for label in (0, 1)]
  np.testing.assert_allclose(sums, [40, 40], rtol=1e-5)
  assert (rows_of(task, "validation")["weights"] == 1).all()


NINE, FIVE = np.arange(9), np.zeros((9, 5))
BAD = {
  "empty": (dict(o=np.array([0, 2, 2, 4]), y=NINE[:3], x=FIVE[:4, :1]), {"offsets": "o"}, "1 of 3 sequences are empty"),
  "labels": (dict(x=FIVE, y=NINE), {"labels": 5}, "4 of 9 labels are outside 0 … 4, the first is number 5"),
  "not finite": (dict(x=np.full((9, 2), np.nan), y=NINE), {}, "18 of 18 steps are not finite"),
  "counts": (dict(x=FIVE, y=NINE[:8]), {}, "8 targets for 9 sequences"),
  "too long": (dict(x=FIVE, y=NINE), {"length": 3}, "9 of 9 sequences have more than data.length=3"),
  "channels": (dict(x=FIVE[..., None], y=NINE), {"channels": 3}, "data.channels=3, but .* have 1"),
  "no such name": (dict(xs=FIVE, y=NINE), {}, r"no array data.inputs='x' .did you mean 'xs'"),
  "no split": (dict(x=FIVE, y=NINE, s=np.full(9, "all")), {"split": "s"}, "9 of 9 splits are none of"),
  "texts": (dict(x=FIVE.astype(str), y=NINE), {}, "inputs are <U32, no real numbers"),
  "complex": (dict(x=FIVE + 1j, y=NINE), {}, "inputs are complex128, no real numbers"),
  "pickles": (dict(x=FIVE, y=NINE.astype(object)), {}, "cannot read .*allow_pickle=False"),
  "one-hot": (dict(x=FIVE, y=np.eye(9)), {}, r"data.targets='y' has the shape \(9, 9\)"),
  "one label": (dict(x=FIVE, y=np.int32(3)), {}, "1 targets for 9 sequences"),
  "no label": (dict(x=FIVE, y=np.where(NINE > 6, np.nan, NINE)), {}, "2 of 9 labels are missing, .* number 7"),
  "no number": (dict(x=FIVE, y=np.full(9, "three")), {"predict": "number"}, "column .y. has 9 values that are no numb"),
  "too large": (dict(x=1e200 * NINE[:, None], y=NINE), {}, "feature 0 is too large to be normalised"),
  "pairs of groups": (dict(x=FIVE, y=NINE, g=FIVE[:, :2]), {"groups": "g"}, r"groups have the shape \(9, 2\)"),
  "going back": (
    dict(x=FIVE, y=NINE, t=FIVE - np.arange(5).astype(np.uint8) // 3),
    {"times": "t"},
    "9 of 45 times come before the one in front of them; sort the steps, the first is number 3",
  ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_counted_and_named_in_one_line(tmp_path, case):
  arrays, fields, message = BAD[case]
  np.savez(tmp_path / "a.npz", **arrays)
  use = lambda task: (task.describe(), next(task.eval_sets()["validation"]()))
  with pytest.raises(ValueError, match=message) as error:
    use(build_task("arrays", files=str(tmp_path / "a.npz"), **fields))
  assert "\n" not in str(error.value)


def test_long_sequences_may_be_cut_and_are_counted(tmp_path):
  np.savez(tmp_path / "a.npz", x=np.arange(100).reshape(20, 5), y=np.arange(20) % 2)
  task = build_task("arrays", files=str(tmp_path / "a.npz"), length=3, longer="cut", normalise=False)
  assert task.describe()["cut"] == 20
  assert task.notice.splitlines()[1:] == ["20 of 20 sequences are longer than data.length=3 and lose their end"]
  assert rows_of(task, "train")["inputs"].shape == (16, 3, 1)


def test_missing_and_broken_files_are_named(tmp_path):
  refused("nowhere.npz' does not exist", build_task, "arrays", files=str(tmp_path / "nowhere.npz"))
  (tmp_path / "a.npz").write_bytes(b"PK no zip")
  refused("cannot read .*a.npz'", build_task, "arrays", files=str(tmp_path / "a.npz"))
  (tmp_path / "a.csv").write_text("a,y\n1,2\nx,3\n")
  with pytest.raises(ValueError, match="column 'a' has 1 values that are no numbers, first 'x' in row 2"):
    build_task("arrays", files=str(tmp_path / "a.csv"), inputs="")
  (tmp_path / "b.csv").write_text("a,y\n1,2\n3\n")
  refused("1 lines have not 2 values, first line 3", build_task, "arrays", files=str(tmp_path / "b.csv"), inputs="")


@pytest.mark.parametrize(
  "name, content, message",
  [
    ("idx-ubyte.gz", gzip.compress(bytes(99))[:-20] + bytes(20), "cannot read"),
    ("a.npz", b"\x93NUMPY\x01\0v\0{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}", "cannot read"),
    ("a.npy", b"\x80\x04\x95", "cannot read .*pickle"),
    ("a.csv", b"a,a\n1,2\n", "several columns named 'a'"),
    ("a.csv", b"a,y\n1,\xff\n", "cannot read .*utf-8"),
    ("a.parquet", b"PAR1", "cannot read"),
    ("a.wav", None, "a.wav' is no file"),
  ],
)
def test_damaged_and_strange_files_are_one_line(tmp_path, name, content, message):
  if content is None:
    os.mkfifo(tmp_path / name)
  else:
    (tmp_path / name).write_bytes(content)
  where = dict(dir=str(tmp_path), files="" if content is None else name, inputs="")
  for predict in ("label", "next"):
    with pytest.raises(ValueError, match=message) as error:
      build_task("arrays", **where, predict=predict, length=2).describe()
    assert "\n" not in str(error.value)


def test_a_table_may_begin_with_a_mark_of_utf_8(tmp_path):
  (tmp_path / "a.csv").write_text("\ufeffy,a\n" + "1,2\n0,3\n" * 9)
  assert build_task("arrays", files=str(tmp_path / "a.csv"), inputs="a").classes == 2


def test_f1_correlation_area_and_determination_are_exact_over_a_set(rng):
  labels, predictions = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
  confusion = np.zeros((3, 3))
  np.add.at(confusion, (labels, predictions), 1)
  each = []
  for c in range(3):
    right = ((labels == c) & (predictions == c)).sum()
    each.append(2 * right / ((labels == c).sum() + (predictions == c).sum()))
  assert losses.macro_f1(confusion / 200) == pytest.approx(np.mean(each))
  two = confusion[:2, :2]
  (tn, fp), (fn, tp) = two
  by_hand = (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
  assert losses.matthews(two / 9) == pytest.approx(by_hand)
  assert losses.matthews(np.eye(4)) == pytest.approx(1)
  assert losses.matthews(np.array([[3, 0], [5, 0]])) == 0
  scores, positive = rng.integers(0, 16, 300), rng.random(300) < 0.3
  histogram = np.zeros((2, 16))
  np.add.at(histogram, (positive.astype(int), scores), 1)
  pairs = scores[positive][:, None] - scores[~positive]
  assert losses.area_under_curve(histogram / 300) == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())
  y, guess = rng.normal(5, 2, 400), rng.normal(5, 2, 400)
  moments = np.stack([y, (y - y.mean()) ** 2, (y - guess) ** 2]).mean(axis=1)[:, None]
  assert losses.determination(moments) == pytest.approx(1 - ((y - guess) ** 2).sum() / ((y - y.mean()) ** 2).sum())
