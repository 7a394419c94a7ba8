"""Named data sets through their builders: small stand-ins everywhere, the published files where they are at hand."""

import functools
import gzip
import hashlib
import http.server
import struct
import threading

import numpy as np
import pytest

from data.builders import mnist, prepare, shakespeare
from data.image_sequence import MEAN, STD
from data.original import File
from data.task import build_task
from tests import originals
from tests.refused import refused


def idx(array):
  return gzip.compress(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
  """A folder with four small idx files, which the builder takes for the published ones."""
  rng = np.random.default_rng(0)
  folder = tmp_path / "files"
  folder.mkdir()
  taken = {}
  for key, original in mnist.MnistIdx.ORIGINALS.items():
    n = 50 if key.startswith("train") else 20
    array = rng.integers(0, 256, (n, 28, 28)) if key.endswith("images") else rng.integers(0, 10, n)
    content = idx(array.astype(np.uint8))
    (folder / original.name).write_bytes(content)
    taken[key] = original._replace(file=File(f"sha256:{hashlib.sha256(content).hexdigest()}", len(content)))
  monkeypatch.setattr(mnist.MnistIdx, "ORIGINALS", taken)
  return folder


@pytest.fixture
def build(stand_in, tmp_path):
  kwargs = {"dir": str(stand_in), "cache": str(tmp_path / "cache"), "held_out": 10, "batch": 8}
  return lambda **changes: build_task("image_sequence", **kwargs | changes)


def test_images_become_normalised_sequences(build, stand_in):
  task = build()
  images = mnist.read_idx(stand_in / "train-images-idx3-ubyte.gz").reshape(50, 784)
  labels = mnist.read_idx(stand_in / "train-labels-idx1-ubyte.gz")
  expected = {image.tobytes(): label for image, label in zip(images, labels)}
  iterator = task.train()
  seen = []
  for _ in range(5):
    batch = next(iterator)
    assert batch["inputs"].shape == (8, 784, 1)
    assert batch["inputs"].dtype == batch["weights"].dtype == np.float32
    assert batch["targets"].shape == batch["weights"].shape == (8,)
    for image, label in zip(batch["inputs"], batch["targets"]):
      pixels = np.rint((image * STD + MEAN) * 255)
      assert abs((pixels / 255 - MEAN) / STD - image).max() < 1e-5
      seen.append(pixels.astype(np.uint8).tobytes())
      assert expected[seen[-1]] == label
  # 40 images are left to train on, and an epoch visits each once
  assert len(set(seen)) == 40
  assert not set(seen) & {image.tobytes() for image in task.splits["validation"].pixels}


def test_evaluation_sets_are_whole_and_apart(build):
  sets = build().eval_sets()
  assert {name: sum(batch["weights"].sum() for batch in run()) for name, run in sets.items()} == {
    "validation": 10,
    "test": 20,
  }
  assert {batch["inputs"].shape for run in sets.values() for batch in run()} == {(8, 784, 1)}


def test_the_permutation_is_one_for_all_images_and_seeds(build):
  plain, permuted, other = build(), build(permuted=True, seed=5), build(permuted=True, permutation_seed=1)
  rows = [next(task.eval_sets()["test"]())["inputs"] for task in (plain, permuted, other)]
  order = np.random.RandomState(92916).permutation(784)
  assert np.array_equal(rows[0][:, order], rows[1])
  assert not np.array_equal(rows[1], rows[2])
  assert plain.describe()["sha256"] != permuted.describe()["sha256"]


def test_images_resume_and_share_exactly(build):
  task = build()
  iterator = task.train()
  # across the end of the epoch
  for _ in range(4):
    next(iterator)
  state = iterator.get_state()
  expected = [next(iterator) for _ in range(3)]
  fresh, halves = task.train(), [task.train(i, 2) for i in range(2)]
  fresh.set_state(state)
  for half in halves:
    half.set_state(state)
  for batch in expected:
    again, parts = next(fresh), [next(half) for half in halves]
    for key, x in batch.items():
      assert np.array_equal(x, again[key])
      assert np.array_equal(x, np.concatenate([part[key] for part in parts]))


def test_the_prepared_set_is_used_again(build, tmp_path, monkeypatch):
  expected = build().describe()
  monkeypatch.setattr(mnist.MnistIdx, "_split_generators", None)
  assert build().describe() == expected
  assert (tmp_path / "cache" / "mnist_idx").is_dir()


@pytest.mark.parametrize("damage", [lambda content: content[:-100], lambda content: b"x" * len(content)])
def test_a_damaged_prepared_set_says_what_to_delete(build, tmp_path, damage):
  build().describe()
  (file,) = (tmp_path / "cache").rglob("*train.array_record*")
  file.write_bytes(damage(file.read_bytes()))
  refused("cannot read '.*mnist_idx.*delete that folder, and it is prepared again", lambda: build().describe())


def test_files_are_found_in_the_folder_of_their_name(build, stand_in):
  stand_in.rename(stand_in.parent / "mnist")
  assert build(dir=str(stand_in.parent)).describe()["test"] == 20


def test_originals_are_downloaded_without_a_folder(build, stand_in, monkeypatch):
  handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(stand_in))
  monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *args: None)
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    taken = {key: each._replace(url=url + each.name) for key, each in mnist.MnistIdx.ORIGINALS.items()}
    monkeypatch.setattr(mnist.MnistIdx, "ORIGINALS", taken)
    expected = build().describe()
    assert build(dir="", cache=str(stand_in / "cache")).describe() == expected
    server.shutdown()


def test_a_failed_download_says_what_to_do(build, stand_in, monkeypatch):
  taken = {key: each._replace(url="http://127.0.0.1:9/" + each.name) for key, each in mnist.MnistIdx.ORIGINALS.items()}
  monkeypatch.setattr(mnist.MnistIdx, "ORIGINALS", taken)
  with pytest.raises(
    ValueError, match="cannot download mnist_idx: .*put .*t10k.* bytes, sha256 .* into a folder and name it in data.dir"
  ):
    build(dir="").train()


def test_bad_folders_and_files_are_named(build, stand_in, tmp_path):
  refused(
    "data.dir='.*none' is not a folder: name one with train-.* bytes, sha256 ",
    lambda: build(dir=str(tmp_path / "none")).train(),
  )
  (tmp_path / "empty").mkdir()
  missing = (
    r"data.dir='.*empty', with its folder 'mnist', lacks 4 of 4 files: .*t10k-images.*ubyte.gz \([\d,]+ bytes, sha256 "
  )
  refused(
    missing + ".*get them from https://storage.googleapis.com/cvdf-datasets/mnist, or leave",
    build(dir=str(tmp_path / "empty")).train,
  )
  labels = stand_in / "train-labels-idx1-ubyte.gz"
  content = labels.read_bytes()
  labels.write_bytes(content[:-1] + b"x")
  refused(
    "train-labels.* is not the published file: .* bytes, sha256 .*; expected .*get it from https",
    lambda: build().train(),
  )
  labels.unlink()
  refused(r"lacks 1 of 4 files: train-labels-idx1-ubyte.gz \([\d,]+ bytes, sha256 ", lambda: build().train())
  labels.write_bytes(content)
  (tmp_path / "file").write_text("")
  with pytest.raises(ValueError, match="cannot prepare mnist_idx in '.*file': .*choose another folder with data.cache"):
    build(cache=str(tmp_path / "file")).train()
  # nothing half done is left that would be taken for a prepared set
  assert build().describe()["test"] == 20


def test_the_cache_folder_can_be_chosen(monkeypatch, tmp_path):
  assert prepare.cache_folder(str(tmp_path)) == tmp_path
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  assert prepare.cache_folder("") == tmp_path / "state-space-models-jax"
  monkeypatch.delenv("XDG_CACHE_HOME")
  monkeypatch.setenv("HOME", str(tmp_path))
  assert prepare.cache_folder("") == tmp_path / ".cache" / "state-space-models-jax"


def test_shakespeare_is_cut_as_published(tmp_path):
  folder = originals.folder("tiny_shakespeare")
  task = build_task("tiny_shakespeare", dir=str(folder), cache=str(tmp_path), length=64)
  splits = {split: documents[0].text for split, documents in task.splits.items()}
  assert {split: len(text) for split, text in splits.items()} == {"train": 1003854, "validation": 55770, "test": 55770}
  whole = (folder / "tiny_shakespeare" / "input.txt").read_bytes()
  assert b"".join(splits[split] for split in shakespeare.SPLITS) == whole
  assert task.decode(next(task.train())["inputs"][0]) in whole
  assert set(task.eval_sets()) == {"validation", "test"}


def test_another_text_is_not_taken_for_shakespeare(tmp_path):
  (tmp_path / "input.txt").write_text("To be")
  with pytest.raises(ValueError, match="input.txt' is not the published file"):
    build_task("tiny_shakespeare", dir=str(tmp_path), cache=str(tmp_path / "cache")).train()


@pytest.mark.slow
def test_mnist_is_read_from_its_original_files(tmp_path):
  folder = originals.folder("mnist")
  task = build_task("image_sequence", dir=str(folder), cache=str(tmp_path))
  facts = task.describe()
  assert (facts["train"], facts["validation"], facts["test"]) == (54000, 6000, 10000)
  images, labels = task.splits["test"]
  assert labels[:5].tolist() == [7, 2, 1, 0, 4]
  pixels = task.splits["train"].pixels / 255
  assert abs(pixels.mean() - MEAN) < 0.002
  assert abs(pixels.std() - STD) < 0.002
