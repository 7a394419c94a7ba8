"""Preparing published sets: each format is read, counts and checksums are held to the published ones, work is kept."""

import gzip
import io
import json
import struct
import tarfile
import wave

import numpy as np
import pytest

from data import prepare, sounds
from data.builders import published, readers, texts
from data.original import File
from data.task import build_task
from mistake import Mistake
from tests import originals
from tests.refused import refused


def run(name, folder, to=None, *, subset=True):
  """What is written, and what was said."""
  said = []
  prepare.prepare(name, folder, to or folder, subset=subset, say=said.append)
  file = (to or folder) / f"{name}.npz"
  return (dict(np.load(file)) if file.exists() else None), said


def write(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_wav(path, samples, rate=16000, channels=1):
  path.parent.mkdir(parents=True, exist_ok=True)
  with wave.open(str(path), "wb") as file:
    file.setnchannels(channels)
    file.setsampwidth(2)
    file.setframerate(rate)
    file.writeframes(np.asarray(samples, "<i2").tobytes())


def test_words_of_speech_are_split_by_the_published_lists(tmp_path):
  for word in ("bed", "cat", "_background_noise_"):
    for take in range(3):
      write_wav(tmp_path / word / f"{take}.wav", np.arange(10) + 100 * take)
  write(tmp_path / "validation_list.txt", "bed/0.wav\ncat/1.wav\n")
  write(tmp_path / "testing_list.txt", "cat/2.wav\n")
  arrays, _ = run("speech_commands_35_8khz", tmp_path)
  assert arrays["y"].tolist() == [0, 0, 0, 1, 1, 1]
  assert arrays["split"].tolist() == ["validation", "train", "train", "train", "validation", "test"]
  assert arrays["offsets"].tolist() == [8000 * i for i in range(7)]
  # every second sample of the second take, and silence after it
  assert arrays["x"][8000:8006, 0].tolist() == [100, 102, 104, 106, 108, 0]
  task = build_task("arrays", files=str(tmp_path / "speech_commands_35_8khz.npz"), offsets="offsets", split="split")
  assert (task.length, task.classes, task.features) == (8000, 2, 1)
  refused("has no folder 'down'", run, "speech_commands_10", tmp_path, error=Mistake)


def test_what_is_left_out_of_words_is_counted_and_said(tmp_path):
  for name in ("validation_list.txt", "testing_list.txt"):
    write(tmp_path / name, "")
  for word in ("bed", "cat"):
    write_wav(tmp_path / word / "long.wav", np.ones(16001))
    write_wav(tmp_path / word / "both.wav", np.ones(32004), channels=2)
    write_wav(tmp_path / word / "fits.wav", np.ones(16000))
  arrays, said = run("speech_commands_35", tmp_path)
  assert arrays["x"].shape == (6 * 16000, 1)
  assert said[0] == "bed: 3 sequences; 2 files cut to 16,000 samples; 1 files read by the first of several channels"
  assert "; 4 files cut to 16,000 samples; 2 files read by the first of several channels; " in said[-1]
  assert json.loads((tmp_path / "speech_commands_35.json").read_text())["left out"] == {
    "cut to 16,000 samples": 4,
    "read by the first of several channels": 2,
  }
  (tmp_path / "speech_commands_35.npz").unlink()
  write_wav(tmp_path / "bed" / "slow.wav", np.ones(9), rate=8000)
  refused("slow.wav' has 8,000 samples a second; .* 16,000", run, "speech_commands_35", tmp_path, error=Mistake)


def test_dna_of_folders_is_numbered(tmp_path):
  for part in ("train", "test"):
    write(tmp_path / part / "a" / "0.txt", "ACGTN")
    write(tmp_path / part / "b" / "0.txt", "acg\n")
  arrays, _ = run("genomic_human_enhancers_cohn", tmp_path)
  assert arrays["x"][:, 0].tolist() == [1, 2, 3, 4, 5, 1, 2, 3] * 2
  assert arrays["offsets"].tolist() == [0, 5, 8, 13, 16]
  assert arrays["split"].tolist() == ["train", "train", "test", "test"]


def test_series_of_ts_files_may_be_ragged_but_not_uneven(tmp_path):
  text = "@problemName x\n@classLabel true one two\n@data\n1,2,3:4,5,6:one\n7,8:9,10:two\n"
  write(tmp_path / "Heartbeat_TRAIN.ts", text)
  write(tmp_path / "Heartbeat_TEST.ts", text)
  arrays, _ = run("uea_heartbeat", tmp_path)
  assert arrays["x"][:5].tolist() == [[1, 4], [2, 5], [3, 6], [7, 9], [8, 10]]
  assert arrays["y"].tolist() == ["one", "two"] * 2
  write(tmp_path / "Heartbeat_TEST.ts", text + "1,?:2,3:one\n")
  (tmp_path / "uea_heartbeat.npz").unlink()
  refused("Heartbeat_TEST.ts', line 6: could not convert", run, "uea_heartbeat", tmp_path, error=Mistake)
  write(tmp_path / "Heartbeat_TEST.ts", text)
  run("uea_heartbeat", tmp_path)


def test_events_of_five_bytes_have_a_place_a_polarity_and_a_time(tmp_path):
  write(tmp_path / "a.bin", bytes([3, 2, 0x80 | 1, 0, 5, 33, 33, 0, 1, 0]))
  tokens, times = readers.nmnist_events(tmp_path / "a.bin")
  assert tokens.tolist() == [(34 + 2) * 34 + 3, 33 * 34 + 33]
  assert times.tolist() == [65541, 256]
  write(tmp_path / "a.bin", bytes([40, 2, 0, 0, 5]))
  refused("events outside of 34 by 34", readers.nmnist_events, tmp_path / "a.bin", error=Mistake)


def packet(*events):
  body = b"".join(struct.pack("<II", x << 17 | y << 2 | p << 1 | valid, t) for x, y, p, t, valid in events)
  return struct.pack("<hhiiiiii", 1, 0, 8, 4, 0, len(events), len(events), len(events)) + body


def test_gestures_are_cut_out_of_recordings(tmp_path):
  events = packet((1, 2, 1, 10, 1), (5, 5, 0, 20, 0), (3, 4, 0, 30, 1)) + packet((127, 127, 1, 50, 1))
  for name in ("a", "b"):
    write(tmp_path / f"{name}.aedat", b"#!AER-DAT3.1\r\n#made here\r\n" + events)
    write(tmp_path / f"{name}_labels.csv", "class,startTime_usec,endTime_usec\n3,10,31\n11,40,60\n")
  write(tmp_path / "trials_to_train.txt", "a.aedat\n")
  write(tmp_path / "trials_to_test.txt", "b.aedat\n")
  arrays, _ = run("dvs128", tmp_path)
  assert arrays["x"][:3, 0].tolist() == [(128 + 2) * 128 + 1, 4 * 128 + 3, 2 * 128 * 128 - 1]
  assert arrays["times"].tolist() == [0, 20, 0] * 2
  assert (arrays["y"].tolist(), arrays["split"].tolist()) == ([2, 10] * 2, ["train"] * 2 + ["test"] * 2)
  write(tmp_path / "a.aedat", b"#!AER-DAT3.1\r\n" + events[:-3])
  refused("ends within a packet", readers.aedat, tmp_path / "a.aedat", error=Mistake)


def test_spikes_of_h5_files_keep_their_times(tmp_path):
  h5py = pytest.importorskip("h5py")
  for part in ("train", "test"):
    with h5py.File(tmp_path / f"shd_{part}.h5", "w") as file:
      for key, kind, rows in (("times", "f4", [[0.5, 1], [2]]), ("units", "u2", [[3, 699], [0]])):
        column = file.create_dataset(f"spikes/{key}", (2,), h5py.vlen_dtype(kind))
        for i, row in enumerate(rows):
          column[i] = row
      file["labels"] = [4, 19]
  arrays, _ = run("shd", tmp_path)
  assert (arrays["x"][:, 0].tolist(), arrays["times"].tolist()) == ([3, 699, 0] * 2, [0.5, 1, 2] * 2)


def idx_files(folder, rows):
  for name in published.IDX:
    shape = (rows, 2, 2) if "images" in name else (rows,)
    header = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    write(folder / name, gzip.compress(header + bytes(range(int(np.prod(shape))))))


def test_missing_and_wrong_files_are_named_with_checksum_and_source(tmp_path):
  missing = r"lacks 4 of 4 files: train-images-idx3-ubyte.gz \(9,912,422 bytes, md5 f68b3c.*get them from storage"
  refused(missing, run, "mnist", tmp_path, error=Mistake)
  idx_files(tmp_path / "mnist", 3)
  wrong = (
    "train-images-idx3-ubyte.gz' is not the published file: .* bytes, md5 .*; expected 9,912,422 bytes, md5 f68b3c"
  )
  refused(wrong, run, "mnist", tmp_path, error=Mistake)
  unknown = r"lacks 3 of 3 files: wiki.train.tokens \(size not known, no checksum is published\).*wikitext-2-v1.zip"
  refused(unknown, run, "wikitext_2", tmp_path, error=Mistake)
  refused("no set is called 'mnsit' .did you mean 'mnist'", run, "mnsit", tmp_path, error=Mistake)
  assert prepare.main(["mnist"]) == 2
  assert prepare.main([]) == 0


def test_work_is_kept_and_counts_are_held_to_the_published_ones(tmp_path, monkeypatch):
  idx_files(tmp_path, 3)
  one = published.SETS["mnist"]._replace(files=dict.fromkeys(published.IDX, File()))
  monkeypatch.setitem(published.SETS, "mnist", one)
  with pytest.raises(Mistake, match="train: 3 of 60,000, test: 3 of 10,000; get it anew, or take --subset"):
    run("mnist", tmp_path, tmp_path / "out", subset=False)
  kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "mnist.parts").iterdir()}
  assert set(kept) == {"train.npz", "test.npz"}
  monkeypatch.setattr(readers, "_idx", pytest.fail)
  arrays, said = run("mnist", tmp_path, tmp_path / "out")
  assert arrays["x"].shape == (24, 1)
  assert arrays["offsets"].tolist() == [4 * i for i in range(7)]
  assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mnist.json", "mnist.npz"]
  assert json.loads((tmp_path / "out" / "mnist.json").read_text())["sequences"]["train"] == 3
  assert "configs/arrays.py:files=" in said[-1]


def test_sets_that_are_read_as_they_are_are_counted(tmp_path):
  for part in ("train", "valid", "test"):
    write(tmp_path / f"wiki.{part}.tokens", " a b \n\n c\n")
  assert texts.words(tmp_path) == dict.fromkeys(("train", "valid", "test"), 6)
  refused("train: 6 of 103,227,021", run, "wikitext_103", tmp_path, subset=False, error=Mistake)
  _, said = run("wikitext_103", tmp_path)
  assert "configs/wikitext103.py" in said[-1]
  write(tmp_path / "hg38.fa", ">chr1\nACGT\n>chr1_random\nA\n")
  assert texts.chromosomes(tmp_path) == {"chr1": 4}


def test_promoters_are_prepared_as_published(tmp_path):
  arrays, _ = run("promoters_ecoli", originals.folder("promoters"), tmp_path, subset=False)
  assert len(arrays["y"]) == 3839


def test_sounds_are_codes_of_their_samples(tmp_path):
  wave_form = np.round(20000 * np.sin(np.arange(50)))
  for name in ("a", "b", "c", "d"):
    write_wav(tmp_path / f"{name}.wav", wave_form[: 30 if name == "d" else 50])
  task = build_task("sounds", dir=str(tmp_path), length=40, batch=2, validation=0.3)
  assert sum(len(split) for split in task.splits.values()) >= 4
  batch = next(task.train())
  assert set(batch) == {"inputs", "targets", "weights"}
  np.testing.assert_array_equal(batch["inputs"][:, 0], 128)
  np.testing.assert_array_equal(batch["inputs"][:, 1:], batch["targets"][:, :-1])
  samples = np.linspace(-1, 1, 201).astype(np.float32)
  for code, most in (("mu_law", 0.03), ("linear", 0.005)):
    assert np.abs(sounds.decode(sounds.encode(samples, code), code) - samples).max() < most
  # x = 0.5 by the formula: 255 (ln 128.5 / ln 256 + 1) / 2
  assert sounds.encode(np.array([0.5])) == round(255 * (np.log(128.5) / np.log(256) + 1) / 2)
  with pytest.raises(Mistake, match="none of which data.pattern='x' fits"):
    assert not build_task("sounds", dir=str(tmp_path), pattern="x").splits
  write(tmp_path / "broken" / "x.wav", "no sound")
  refused("cannot read .*x.wav'", lambda: build_task("sounds", dir=str(tmp_path / "broken")).splits, error=Mistake)
  write_wav(tmp_path / "two" / "x.wav", wave_form, channels=2)
  refused("x.wav' has 2 channels", lambda: build_task("sounds", dir=str(tmp_path / "two")).splits, error=Mistake)
  for part in ("train", "valid", "test"):
    write_wav(tmp_path / "parts" / part / "x.wav", wave_form)
  assert set(build_task("sounds", dir=str(tmp_path / "parts")).splits) == {"train", "validation", "test"}


def test_images_are_rows_of_pixels():
  task = build_task("pixels", dir=str(originals.folder("mnist")), cache="unused", batch=2)
  assert (task.side, task.channels, task.length) == (28, 1, 784)


def test_an_archive_of_reviews_is_read(tmp_path, monkeypatch):
  with tarfile.open(tmp_path / "aclImdb_v1.tar.gz", "w:gz") as archive:
    for name in ("train/pos/0_9", "train/neg/0_1", "test/pos/0_8"):
      info = tarfile.TarInfo(f"aclImdb/{name}.txt")
      info.size = 2
      archive.addfile(info, io.BytesIO(b"ok"))
  one = published.SETS["imdb_archive"]._replace(files={"aclImdb_v1.tar.gz": File()})
  monkeypatch.setitem(published.SETS, "imdb_archive", one)
  arrays, _ = run("imdb_archive", tmp_path)
  assert (arrays["y"].tolist(), arrays["split"].tolist()) == ([1, 0, 1], ["test", "train", "train"])


def test_species_are_windows_of_their_own_records(tmp_path):
  rng = np.random.default_rng(0)
  for name, letters in (("ape", "AC"), ("mouse", "GT")):
    for record in range(4):
      text = "".join(rng.choice(list(letters), 60))
      write(tmp_path / name / f"{record}.fa", f">chr{record}\n{text}\n")
  task = build_task("species", dir=str(tmp_path), length=8, batch=6, eval_rows=12, validation=0.3)
  assert (task.classes, task.names) == (2, ["ape", "mouse"])
  for split, records in (("train", 2), ("validation", 2)):
    assert [len(each) for each in task.splits[split]] == [records] * 2
  batch = next(task.train())
  is_ape = np.isin(batch["inputs"], list(b"AC")).all(axis=1)
  np.testing.assert_array_equal(batch["targets"], np.where(is_ape, 0, 1))
  assert np.isin(batch["inputs"][~is_ape], list(b"GT")).all()
  with pytest.raises(Mistake, match="has 0 records of data.length=99"):
    assert not build_task("species", dir=str(tmp_path), length=99).splits
