"""MNIST (LeCun, Cortes & Burges) from the four original idx files."""

import gzip
import pathlib
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data.builders.prepare import FromFiles, Original, examples, prepare
from data.original import File

URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
SIDE = 28


def original(name: str, sha256: str, size: int) -> Original:
  """Describes one of the four original files."""
  return Original(name, URL + name, File(f"sha256:{sha256}", size))


class MnistIdx(FromFiles):
  """28 × 28 grey images of digits, in the order of the files."""

  VERSION = tfds.core.Version("1.0.0")
  ORIGINALS = {
    "train_images": original(
      "train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9912422
    ),
    "train_labels": original(
      "train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28881
    ),
    "test_images": original(
      "t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1648877
    ),
    "test_labels": original(
      "t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4542
    ),
  }

  def _info(self) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict(
      {
        "image": tfds.features.Tensor(shape=(SIDE, SIDE), dtype=np.uint8, encoding="zlib"),
        "label": tfds.features.ClassLabel(num_classes=10),
      }
    )
    return tfds.core.DatasetInfo(builder=self, description=self.__doc__, features=features, disable_shuffling=True)

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    paths = self.originals(dl_manager)
    return {s: self._generate_examples(paths[f"{s}_images"], paths[f"{s}_labels"]) for s in ("train", "test")}

  def _generate_examples(self, images: pathlib.Path, labels: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for i, (image, label) in enumerate(zip(read_idx(images), read_idx(labels), strict=True)):
      yield i, {"image": image, "label": int(label)}


def read_idx(path: pathlib.Path) -> np.ndarray:
  """Returns the array of a gzipped idx file of unsigned bytes: 0, 0, type 8, rank, then big-endian sizes."""
  data = gzip.decompress(path.read_bytes())
  rank = data[3]
  shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
  return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load(folder: str, cache: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Returns of each split (images uint8 `n 28 28`, labels int32 `n`), whole, in memory (47 MB)."""
  builder = prepare(MnistIdx, folder, "mnist", cache)
  out = {}
  for split in ("train", "test"):
    records = examples(builder, split)
    images = np.stack([example["image"] for example in records])
    out[split] = images, np.array([example["label"] for example in records], np.int32)
  return out
