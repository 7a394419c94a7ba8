"""Named data sets: their published counts where the files are at hand, and what is said where they are not."""

import gzip
import io
import tarfile

import numpy as np
import pytest

from data import fasta, known_sets
from data.known_sets import KNOWN, SIDE
from data.task import build_task
from mistake import Mistake
from tests import originals
from tests.refused import refused


def named(dataset, **fields):
  return build_task("named", dataset=dataset, dir=str(originals.folder(KNOWN[dataset].folder)), **fields)


@pytest.mark.parametrize(
  "dataset,length,classes",
  [
    ("promoters_ecoli", 81, [3000, 839]),
    ("promoters_bacillus", 81, [1000, 373]),
    ("promoters_mouse", 251, [3530, 1255]),
    ("promoters_arabidopsis", 251, [2879, 1497]),
  ],
)
def test_promoters_have_their_published_counts(dataset, length, classes):
  task = named(dataset)
  facts = task.describe()
  assert (task.length, facts["rows of each class"], task.vocab) == (length, classes, 6)
  batch = task.batch_at(task.rows["test"])
  assert set(np.unique(batch["inputs"])) <= {1, 2, 3, 4, 5}
  assert (batch["inputs"] < 5).mean() > 0.99
  assert set(task.metrics) >= {"f1", "auc"}


def test_recordings_of_digits_are_split_by_their_takes():
  task = named("spoken_digits")
  facts = task.describe()
  assert facts["test rows"] == 300
  assert facts["rows of each class"] == [90] * 10
  # speakers stay together in what is held out of training
  speakers = {split: set(task.data.groups[task.rows[split][:, 1]]) for split in ("train", "validation")}
  assert not speakers["train"] & speakers["validation"]
  assert abs(task.data.values).max() <= 1
  assert (task.data.lengths.min(), task.data.lengths.max()) == (1148, 10504)


def test_events_have_addresses_and_gaps():
  task = named("nmnist_subset", length=500, longer="cut")
  batch = task.batch_at(task.rows["test"][:8])
  assert batch["inputs"].max() < 2 * SIDE**2
  assert batch["dt"].shape == (8, 500)
  # about 4,100 events in 0.31 s
  assert 0.02 < batch["dt"][:, 1:].mean() < 0.3
  assert {split: len(rows) for split, rows in task.rows.items()} == {"train": 900, "validation": 100, "test": 100}
  assert "dt" not in named("nmnist_subset_untimed", length=500, longer="cut").batch_at(task.rows["test"][:8])


@pytest.mark.slow
def test_images_and_reviews_have_their_published_counts():
  grey = named("cifar10_subset_grey")
  assert (grey.features, grey.length, len(grey.rows["test"])) == (1, 1024, 1000)
  assert abs(grey.scale[0][0] - 122.6) < 3
  reviews = named("imdb", length=256, longer="cut")
  assert len(reviews.data) == 50000
  assert np.bincount(reviews.answers).tolist() == [25000, 25000]
  assert len(reviews.rows["test"]) == 25000


def test_the_binary_archive_of_images_is_read(tmp_path):
  rng = np.random.default_rng(0)
  records = rng.integers(0, 256, (12, 3073)).astype(np.uint8)
  with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
    for i, name in enumerate([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]):
      content = records[2 * i : 2 * i + 2].tobytes()
      member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  images = known_sets.cifar([tmp_path / "a.tar.gz"], grey=False)
  assert images.targets.tolist() == records[:, 0].tolist()
  assert images.split.tolist() == ["train"] * 10 + ["test"] * 2
  # the third pixel of the second row, of the second image
  assert images.values[1024 + 34].tolist() == records[1, [1 + 34, 1 + 1024 + 34, 1 + 2048 + 34]].tolist()
  grey = known_sets.cifar([tmp_path / "a.tar.gz"], grey=True).values
  assert abs(grey[:, 0] - images.values @ [0.299, 0.587, 0.114]).max() <= 0.5


def test_genomes_are_documents_of_capital_letters(tmp_path):
  (tmp_path / "a.fa").write_text(">one thing\nacgt\nNNac\n>two\n" + "ACGT" * 50 + "\n")
  (tmp_path / "b.fna.gz").write_bytes(gzip.compress(b">three\n" + b"G" * 300))
  assert [record.text for record in fasta.records(tmp_path / "a.fa")] == [b"ACGTNNAC", b"ACGT" * 50]
  facts = build_task("fasta", dir=str(tmp_path), validation=0.3, length=16).describe()
  assert facts["bytes"] == 8 + 200 + 300
  assert 100 < facts["validation"]["bytes"] < 210
  (tmp_path / "odd.fa").write_bytes(b"\n>one>a\r\nac gt\r\n;older comment\r\n\r\n nn\r\n>\n>>\nG\n>")
  odd = list(fasta.records(tmp_path / "odd.fa"))
  assert [record.text for record in odd] == [b"ACGTNN", b"", b"G", b""]
  assert odd[0].name.endswith(":one>a")
  (tmp_path / "odd.fa").unlink()
  (tmp_path / "b.fna.gz").write_bytes(gzip.compress(b">three\n" + bytes(range(256)))[:-20] + bytes(20))
  refused("cannot read .*b.fna.gz", lambda: build_task("fasta", dir=str(tmp_path), length=16).describe())
  (tmp_path / "b.fna.gz").write_bytes(b"no DNA")
  with pytest.raises(ValueError, match="b.fna.gz' is no FASTA file: it begins with b'no DNA'"):
    build_task("fasta", dir=str(tmp_path), length=16).describe()
  refused("data.files='' .*name a file or a folder", lambda: build_task("fasta").describe())


def test_both_strands_are_trained_on_and_rows_grow(tmp_path):
  (tmp_path / "a.fa").write_text(">a\n" + "AACGN" * 20)
  task = build_task("fasta", dir=str(tmp_path), length=8, batch=2, strands="both", stages=((0, 2), (1, 8)))
  one, other = (document.text for document in task.splits["train"])
  assert other == one[::-1].translate(bytes.maketrans(b"ACGT", b"TGCA"))
  assert other[:5] in (b"NCGTT", b"CGTTN", b"GTTNC", b"TTNCG", b"TNCGT")
  rows = task.train()
  first, second = next(rows), next(rows)
  assert first["reset"][:, ::2].all()
  assert second["reset"][:, 0].all()
  assert second["reset"].sum() < first["reset"].sum()
  with pytest.raises(ValueError, match="data.stages=.*length up to data.length=8"):
    build_task("fasta", dir=str(tmp_path), length=8, stages=((0, 9),))


def test_the_genome_of_e_coli_has_its_published_length():
  folder = originals.folder("genomics")
  facts = build_task("fasta", dir=str(folder), files="genomics/ecoli536_NC_008253.fna.gz").describe()
  assert facts["bytes"] == 4938920
  assert facts["train"]["unigram_bits_per_byte"] == pytest.approx(2, abs=0.01)


def test_images_are_read_pixel_by_pixel_whatever_their_set():
  fields = dict(dataset="cifar10_subset", dir=str(originals.folder("cifar10_subset")), held_out=400)
  task = build_task("image_sequence", **fields)
  assert (task.length, task.features) == (1024, 3)
  assert {split: len(images.labels) for split, images in task.splits.items()} == {
    "train": 3600,
    "validation": 400,
    "test": 1000,
  }
  plain = next(task.eval_sets()["test"]())["inputs"]
  assert abs(plain.mean()) < 0.2
  assert 0.8 < plain.std() < 1.2
  permuted = next(build_task("image_sequence", permuted=True, **fields).eval_sets()["test"]())["inputs"]
  assert np.array_equal(np.sort(plain, axis=1), np.sort(permuted, axis=1))
  with pytest.raises(ValueError, match="data.held_out=6000 .*0 … 3999 of the 4000 training images"):
    build_task("image_sequence", **fields | {"held_out": 6000})
  assert build_task("image_sequence", **fields | {"held_out": 0}).sizes == {"train": 4000, "test": 1000}


def test_the_whole_training_part_may_be_trained_on_where_there_is_a_test_part():
  task = named("spoken_digits", length=8000, longer="cut", validation=0.0)
  assert ({split: len(rows) for split, rows in task.rows.items()}, [*task.eval_sets()]) == (
    {"train": 600, "test": 300},
    ["test"],
  )
  message = "data.validation=0, but data.dataset='promoters_ecoli' has no test split of its own.*give a share above 0"
  refused(message, named("promoters_ecoli", validation=0.0).eval_sets, error=Mistake)


def test_what_is_missing_or_different_is_named(tmp_path):
  part = r"cifar10_train4000_test1000.npz \(14,188,820 bytes, sha256 7e296b9c\w+\); get it from the first images of"
  refused(r"data.dir='' .* a folder with " + part, build_task, "named")
  images = build_task("image_sequence", dataset="cifar10_subset", held_out=9)
  refused(r"data.dir='' .* a folder with " + part, images.train)
  both = (
    r"lacks 2 of 2 files: Ecoli_prom.fa.gz \(33,452 bytes, sha256 721d1483\w+\), Ecoli_non_prom.fa.gz \(61,508 bytes"
  )
  fields = dict(dataset="promoters_ecoli", dir=str(tmp_path))
  refused(both + ".*; get them from the CNNPromoterData", build_task, "named", **fields)
  (tmp_path / "Ecoli_prom.fa.gz").write_bytes(b"other")
  refused("lacks 1 of 2 files: Ecoli_non_prom.fa.gz .*CNNPromoterData", build_task, "named", **fields)
  (tmp_path / "Ecoli_non_prom.fa.gz").write_bytes(b"other")
  message = (
    "Ecoli_prom.fa.gz' is not the published file: 5 bytes, sha256 d9298a10.*; expected 33,452 bytes, sha256 721d1483"
  )
  refused(message + ".*CNNPromoterData", build_task, "named", **fields)
  refused("data.dataset='cifar' .*choose from", build_task, "named", dataset="cifar")
