"""Images read pixel by pixel: sequential, permuted MNIST and CIFAR-10 (Le, Jaitly & Hinton 2015, arXiv:1504.00941)."""

import dataclasses
import functools
import hashlib
from typing import Any, ClassVar, NamedTuple

import numpy as np

from data import draws, known_sets, pipeline
from data.base import Stored
from data.pipeline import Batch


class Kind(NamedTuple):
  """A set of images: sizes, and mean and standard deviation of its pixels in [0, 1], as most published models have."""

  pixels: int
  mean: tuple[float, ...]
  deviation: tuple[float, ...]
  train: int  # images, of which some are held out


# mean and standard deviation of MNIST's training pixels in [0, 1]
MEAN, STD = 0.1307, 0.3081
COLOURS = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)
GREY = (122.6 / 255,), (61 / 255,)
KINDS = {
  "mnist": Kind(28 * 28, (MEAN,), (STD,), 60000),
  "cifar10": Kind(32 * 32, *COLOURS, 50000),
  "cifar10_grey": Kind(32 * 32, *GREY, 50000),
  "cifar10_subset": Kind(32 * 32, *COLOURS, 4000),
  "cifar10_subset_grey": Kind(32 * 32, *GREY, 4000),
}
# the seed of the permutation in the orthogonal-RNN line of work; RandomState's streams are frozen by numpy
PERMUTATION = 92916


class Images(NamedTuple):
  """The images of one split."""

  pixels: np.ndarray  # uint8 `n t c`
  labels: np.ndarray  # int32 `n`


@dataclasses.dataclass(frozen=True)
class ImageSequence(Stored):
  """Classify an image from its normalised pixels, read row after row or in one fixed random order.

  Of the training images, `held_out` are the validation set whatever the seed; the test set is an evaluation set of its
  own, not to be used for choices.

  Attributes:
    dataset: "mnist", or "cifar10" with three colours a pixel, or one with "_grey"; the "_subset"s are its first images.
    permuted: whether pixels are read in a random order, which `permutation_seed` fixes.
    held_out: training images kept for validation (10 % of MNIST, as in the S4 code base); 0 trains on all of them and
      evaluates on the test set alone.
    dir: a folder with the original files, or with one named like the set that holds them; MNIST is downloaded without.
    cache: where the prepared data set is kept; empty for the user's cache folder.
  """

  batch: int = 64
  seed: int = 0
  dataset: str = "mnist"
  permuted: bool = False
  permutation_seed: int = PERMUTATION
  held_out: int = 6000
  dir: str = ""
  cache: str = ""

  STREAM: ClassVar[str] = "image_sequence"
  head: ClassVar[str] = "classifier"
  vocab: ClassVar[None] = None
  classes: ClassVar[int] = 10
  stateful: ClassVar[bool] = False

  def __post_init__(self) -> None:
    self.require("dataset", self.dataset in KINDS, f"choose from {tuple(KINDS)}")
    train = self.kind.train
    self.require_all(
      ("batch", self.batch >= 1, "at least 1"),
      ("permutation_seed", 0 <= self.permutation_seed < 2**32, "0 … 2^32 - 1"),
      ("held_out", 0 <= self.held_out < train, f"0 … {train - 1} of the {train} training images"),
    )

  @property
  def kind(self) -> Kind:
    """Returns the facts about the set."""
    return KINDS[self.dataset]

  @property
  def length(self) -> int:
    """Returns how many pixels an image has."""
    return self.kind.pixels

  @property
  def features(self) -> int:
    """Returns how many colours a pixel has."""
    return len(self.kind.mean)

  def _read(self) -> dict[str, Images]:
    """Reads the two splits of the files, 'train' and 'test'."""
    if self.dataset == "mnist":
      # tensorflow-datasets takes more than a second to import
      from data.builders import mnist

      whole = mnist.load(self.dir, self.cache)
      return {split: Images(images.reshape(len(images), -1, 1), labels) for split, (images, labels) in whole.items()}
    self.require("dir", bool(self.dir), known_sets.needs(self.dataset))
    data = known_sets.load(self.dataset, pipeline.folder("dir", self.dir))
    assert data.split is not None, "sets of images have splits"
    assert data.targets is not None, "sets of images have labels"
    images = data.values.reshape(len(data), self.length, self.features)
    return {
      split: Images(images[data.split == split], data.targets[data.split == split]) for split in ("train", "test")
    }

  @functools.cached_property
  def splits(self) -> dict[str, Images]:
    """Reads 'train', 'validation', unless it is empty, and 'test' once."""
    size = self.length
    order = np.random.RandomState(self.permutation_seed).permutation(size) if self.permuted else np.arange(size)
    whole = {split: Images(images.pixels[:, order], images.labels) for split, images in self._read().items()}
    shuffled = draws.permutation(0, "image_sequence/validation", 0, len(whole["train"].labels))
    training, validation = shuffled[self.held_out :], shuffled[: self.held_out]
    train = whole["train"]
    parts = {
      "train": Images(train.pixels[training], train.labels[training]),
      "validation": Images(train.pixels[validation], train.labels[validation]),
      "test": whole["test"],
    }
    return {split: images for split, images in parts.items() if len(images.labels)}

  @property
  def sizes(self) -> dict[str, int]:
    """Returns how many images each split has."""
    return {split: len(images.labels) for split, images in self.splits.items()}

  def take(self, split: str, numbers: np.ndarray) -> Batch:
    """Returns normalised pixels `b t c`, labels `b` and weights `b` of the images with these numbers."""
    images, kind = self.splits[split], self.kind
    pixels = (images.pixels[numbers].astype(np.float32) / 255 - np.array(kind.mean)) / np.array(kind.deviation)
    return {
      "inputs": pixels.astype(np.float32),
      "targets": images.labels[numbers],
      "weights": np.ones(len(numbers), np.float32),
    }

  def describe(self) -> dict[str, Any]:
    """Returns the fields but for the folders, images of each split, and the checksum of all of them in order."""
    checksum = hashlib.sha256()
    for images in self.splits.values():
      checksum.update(images.pixels.tobytes())
      checksum.update(images.labels.astype("<i4").tobytes())
    fields = {key: x for key, x in dataclasses.asdict(self).items() if key not in ("dir", "cache")}
    return {"task": "ImageSequence", **fields, **self.sizes, "sha256": checksum.hexdigest()}
