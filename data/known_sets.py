"""Named data sets as sequences, from the files their authors or others published, checked byte for byte.

cifar10_subset, cifar10_subset_grey   4,000 training and 1,000 test images of these
spoken_digits                         900 recordings of the Free Spoken Digit Dataset at 8 kHz; takes 0 … 4 are the test
promoters_NAME                        promoters and other DNA of ecoli, bacillus, mouse and arabidopsis
nmnist_subset                         1,000 training and 100 test recordings of N-MNIST: an event a step, with its time
nmnist_subset_untimed                 the same events without their times, for models that take none
imdb                                  50,000 film reviews as bytes, good or bad (the Long Range Arena's Text)
"""

import functools
import gzip
import io
import pathlib
import re
import tarfile
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from data import original
from data.original import File
from data.sequences import Sequences, sound

BASES = b"ACGT"
# tokens of DNA: padding, the four bases, and what is none of them
DNA_TOKENS = 6
# pixels of a side of an N-MNIST recording
SIDE = 34


class KnownSet(NamedTuple):
  """Describes a data set that is known by its files.

  Attributes:
    files: by name.
    folder: the name a folder with these files may have.
    source: where they are published.
    tokens: the vocabulary, 0 for features.
    unit: of the times, in those of the files.
  """

  files: Mapping[str, File]
  folder: str
  source: str
  make: Callable[[list[pathlib.Path]], Sequences]
  tokens: int = 0
  channels: int = 1
  labels: int = 10
  unit: float = 1.0


def needs(name: str) -> str:
  """Returns what `data.dir` must be for a set: a folder with files of this size and checksum, from that source."""
  return f"a folder with {original.listed(KNOWN[name].files)}; get it from {KNOWN[name].source}"


def load(name: str, folder: pathlib.Path) -> Sequences:
  """Reads a set from its files in `folder` or in the set's own folder there.

  Raises:
    Mistake: a file is missing, with its size, checksum and source; or is another one.
  """
  known = KNOWN[name]
  where = f"data.dir={str(folder)!r}, with its folder {known.folder!r},"
  root = original.find(where, (folder / known.folder, folder), known.files, known.source)
  for file, facts in known.files.items():
    original.verify(root / file, facts, known.source)
  return known.make([root / file for file in known.files])


def flat(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """Puts sequences "t f" end to end, and returns where each begins."""
  return np.concatenate(parts), np.concatenate([[0], np.cumsum([len(part) for part in parts])])


def cifar_subset(paths: list[pathlib.Path], *, grey: bool) -> Sequences:
  """Reads the images of an .npz."""
  arrays = np.load(paths[0])
  images, labels = (np.concatenate([arrays[f"{key}_train"], arrays[f"{key}_test"]]) for key in "xy")
  return pictures(images, labels, len(arrays["x_train"]), grey=grey)


def cifar(paths: list[pathlib.Path], *, grey: bool) -> Sequences:
  """Reads the images of the binary archive: six files of records, a byte for the label and 1,024 for each colour."""
  with tarfile.open(paths[0]) as archive:
    members = {pathlib.PurePath(member.name).name: member for member in archive}
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    files = [archive.extractfile(members[name]) for name in names]
    parts = [np.frombuffer(file.read(), np.uint8).reshape(-1, 3073) for file in files if file]
  records = np.concatenate(parts)
  images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
  return pictures(images, records[:, 0], len(records) - len(parts[-1]), grey=grey)


def pictures(images: np.ndarray, labels: np.ndarray, train: int, *, grey: bool) -> Sequences:
  """Returns images row by row, the first `train` to train on; grey is PIL's 0.299 red + 0.587 green + 0.114 blue."""
  n, pixels = len(images), images.shape[1] * images.shape[2]
  values = images.reshape(n * pixels, 3)
  if grey:
    values = np.rint(values @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[:, None]
  split = np.repeat(["train", "test"], [train, n - train])
  return Sequences(values, np.arange(n + 1) * pixels, labels.astype(np.int32), split=split)


def spoken_digits(paths: list[pathlib.Path]) -> Sequences:
  """Reads the samples of each recording, whose file is named digit_speaker_take."""
  sounds, names = [], []
  with tarfile.open(paths[0]) as archive:
    for member in sorted(archive, key=lambda member: member.name):
      match = re.fullmatch(r".*/(\d)_(\w+)_(\d+)\.wav", member.name)
      file = archive.extractfile(member) if match else None
      if match and file:
        sounds.append(sound(io.BytesIO(file.read())).samples)
        names.append(match.groups())
  values, starts = flat(sounds)
  split = np.array(["test" if int(take) < 5 else "train" for *_, take in names])
  labels, speakers = (np.array(part) for part in list(zip(*names))[:2])
  return Sequences(values, starts, labels.astype(np.int32), speakers, split)


def promoters(paths: list[pathlib.Path]) -> Sequences:
  """Reads the bases of each record of two FASTA files: of promoters (label 1) and of other DNA (label 0)."""
  table = np.full(256, DNA_TOKENS - 1, np.uint8)
  table[list(BASES)] = table[list(BASES.lower())] = np.arange(1, 5)
  records, labels = [], []
  for label, path in zip((1, 0), paths):
    for record in gzip.decompress(path.read_bytes()).split(b">")[1:]:
      bases = b"".join(record.split(b"\n")[1:]).replace(b"\r", b"")
      records.append(table[np.frombuffer(bases, np.uint8)][:, None])
      labels.append(label)
  values, starts = flat(records)
  return Sequences(values, starts, np.array(labels, np.int32))


def nmnist(paths: list[pathlib.Path], *, timed: bool) -> Sequences:
  """Reads events as tokens of position and polarity, and their times in microseconds."""
  arrays = np.load(paths[0])
  join = lambda key: np.concatenate([arrays[f"train_{key}"], arrays[f"test_{key}"]])
  tokens = (join("p").astype(np.int32) * SIDE + join("y")) * SIDE + join("x")
  first = arrays["train_offsets"]
  starts = np.concatenate([first, arrays["test_offsets"][1:] + first[-1]])
  split = np.repeat(["train", "test"], [len(arrays["train_label"]), len(arrays["test_label"])])
  times = join("t").astype(float) if timed else None
  return Sequences(tokens[:, None], starts, join("label").astype(np.int32), split=split, times=times)


def imdb(paths: list[pathlib.Path]) -> Sequences:
  """Reads the bytes of each review; label 1 is good. The published split has no validation part."""
  reviews, labels, split = [], [], []
  with tarfile.open(paths[0]) as archive:
    for member in archive:
      match = re.fullmatch(r"aclImdb/(train|test)/(pos|neg)/\d+_\d+\.txt", member.name)
      file = archive.extractfile(member) if match else None
      if match and file:
        reviews.append((member.name, file.read()))
  # in the order of their names, whatever that of the archive
  reviews.sort()
  for name, _ in reviews:
    labels.append(int("/pos/" in name))
    split.append("test" if "/test/" in name else "train")
  values, starts = flat([np.frombuffer(text, np.uint8) for _, text in reviews])
  return Sequences(values[:, None], starts, np.array(labels, np.int32), split=np.array(split))


def _dna(files: Mapping[str, File]) -> KnownSet:
  source = "the CNNPromoterData files of Umarov & Solovyev 2017 (doi:10.1371/journal.pone.0171410), gzipped"
  return KnownSet(files, "promoters", source, promoters, tokens=DNA_TOKENS, labels=2)


def _nmnist(*, timed: bool) -> KnownSet:
  return KnownSet(
    {
      "nmnist_small_events.npz": File(
        "sha256:121c60d5ecd0a5f26a6ce9acbe973b53e75e352eb03399a9751de7112cee870b", 14552237
      )
    },
    "nmnist_small",
    "NMNISTsmall of github.com/bamsumit/slayerPytorch as arrays SPLIT_x, _y, _p, _t, _offsets and _label",
    functools.partial(nmnist, timed=timed),
    tokens=2 * SIDE * SIDE,
    unit=1000.0,
  )


CIFAR = "www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
WHOLE = {
  "cifar-10-binary.tar.gz": File("sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", 170052171)
}
PART = {
  "cifar10_train4000_test1000.npz": File(
    "sha256:7e296b9ca5f7a130ce6462f6b2c1d8d83471063d2da6d2f40c867ac48dc77ebc", 14188820
  )
}
SUBSET = "the first images of cs.toronto.edu/~kriz/cifar.html as x_train, y_train, x_test, y_test"
KNOWN: dict[str, KnownSet] = {
  "cifar10": KnownSet(WHOLE, "cifar10", CIFAR, functools.partial(cifar, grey=False), channels=3),
  "cifar10_grey": KnownSet(WHOLE, "cifar10", CIFAR, functools.partial(cifar, grey=True)),
  "cifar10_grey_tokens": KnownSet(WHOLE, "cifar10", CIFAR, functools.partial(cifar, grey=True), tokens=256),
  "cifar10_subset": KnownSet(PART, "cifar10_subset", SUBSET, functools.partial(cifar_subset, grey=False), channels=3),
  "cifar10_subset_grey": KnownSet(PART, "cifar10_subset", SUBSET, functools.partial(cifar_subset, grey=True)),
  "spoken_digits": KnownSet(
    {"fsdd_idx0-14.tar.xz": File("sha256:1a82892998626789b348860af123991fd5bc14ee4c58c1e48c7835c56a8696c8", 4209076)},
    "spoken_digit",
    "takes 0 … 14 of github.com/Jakobovski/free-spoken-digit-dataset",
    spoken_digits,
  ),
  "promoters_ecoli": _dna(
    {
      "Ecoli_prom.fa.gz": File("sha256:721d1483dbaac485518efa4327e2c6b897463e693fb1b0c5ef1e2b73579628d2", 33452),
      "Ecoli_non_prom.fa.gz": File("sha256:ffa49271c090571f7b155ad8af3d65827ebb9c2a8320837a640b341a28629b11", 61508),
    }
  ),
  "promoters_bacillus": _dna(
    {
      "Bacillus_prom.fa.gz": File("sha256:04298a584c619ffccef155cd6d3fb502179b67c4b2f423435516542f188cbe20", 10778),
      "Bacillus_non_prom.fa.gz": File("sha256:139bdb5f919ff119707138933677f99d13a72092534db8773e39ad50d1adf5ce", 20750),
    }
  ),
  "promoters_mouse": _dna(
    {
      "Mouse_tata.fa.gz": File("sha256:5d18bc1cd496ef2e98ed0866aaf830ff0203a10f9f017e35af53f438591f7fb0", 114830),
      "Mouse_nonprom.fa.gz": File("sha256:c3ff25e130a8ed3f8a7b71ee501f7e27c74075b2b6858df280e4482b78ac9300", 286231),
    }
  ),
  "promoters_arabidopsis": _dna(
    {
      "Arabidopsis_tata.fa.gz": File("sha256:a443bfdcffbbe2f723f6339798634a47d297aae11918f7f916ef7083acc2b544", 127973),
      "Arabidopsis_non_prom.fa.gz": File(
        "sha256:2a826665c61efb56f59ae46e243d2cbfbf8173254148d25d5fa7e4d189b6ecfb", 275159
      ),
    }
  ),
  "nmnist_subset": _nmnist(timed=True),
  "nmnist_subset_untimed": _nmnist(timed=False),
  "imdb": KnownSet(
    {
      "aclImdb_labelled.tar.xz": File(
        "sha256:5139810af0c68869d1f5c4ae5d3156c87549b6f8a7d920a8a900f5de8b5be061", 19940064
      )
    },
    "imdb",
    "the labelled part of ai.stanford.edu/~amaas/data/sentiment as tar.xz",
    imdb,
    tokens=256,
    labels=2,
  ),
}
