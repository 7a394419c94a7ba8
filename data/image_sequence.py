"""Images read pixel by pixel: sequential and permuted sequential MNIST (Le, Jaitly & Hinton 2015, arXiv:1504.00941)."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np

from data import draws, pipeline
from data.pipeline import Batch

# mean and standard deviation of MNIST's training pixels in [0, 1], as most published models use them
MEAN, STD = 0.1307, 0.3081
SIZE = 28 * 28
# the seed of the permutation in the orthogonal-RNN line of work; RandomState's streams are frozen by numpy
PERMUTATION = 92916
DATASETS = ("mnist",)


class Images(NamedTuple):
  """One split."""

  pixels: np.ndarray  # uint8 `n t`
  labels: np.ndarray  # int32 `n`


@dataclasses.dataclass(frozen=True)
class ImageSequence:
  """Classify an image from its normalised pixels, read row after row or in one fixed random order.

  Of the training images, `held_out` are the validation set whatever the seed; the test set is an evaluation set of its
  own, not to be used for choices.

  Attributes:
    permuted: permuted sequential MNIST; `permutation_seed` fixes the order.
    held_out: training images kept for validation (10 %, as in the S4 code base).
    dir: a folder with the original idx .gz files, or with mnist/ that holds them; empty to download them.
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

  head: ClassVar[str] = "classifier"
  loss: ClassVar[str] = "cross_entropy"
  metrics: ClassVar[tuple[str, ...]] = ("loss", "accuracy")
  vocab: ClassVar[None] = None
  features: ClassVar[int] = 1
  classes: ClassVar[int] = 10
  length: ClassVar[int] = SIZE
  stateful: ClassVar[bool] = False

  def __post_init__(self) -> None:
    for field, allowed, choices in (
      ("dataset", self.dataset in DATASETS, f"choose from {DATASETS}"),
      ("batch", self.batch >= 1, "at least 1"),
      ("permutation_seed", 0 <= self.permutation_seed < 2**32, "0 … 2^32 - 1"),
      ("held_out", 1 <= self.held_out < 60000, "1 … 59999 of the 60000 training images"),
    ):
      pipeline.require("ImageSequence", field, getattr(self, field), allowed, choices)

  @functools.cached_property
  def splits(self) -> dict[str, Images]:
    """'train', 'validation' and 'test', read once."""
    # tensorflow-datasets takes more than a second to import
    from data.builders import mnist

    order = np.random.RandomState(self.permutation_seed).permutation(SIZE) if self.permuted else np.arange(SIZE)
    whole = {
      split: Images(images.reshape(len(images), -1)[:, order], labels)
      for split, (images, labels) in mnist.load(self.dir, self.cache).items()
    }
    shuffled = draws.permutation(0, "image_sequence/validation", 0, len(whole["train"].labels))
    kept, held = shuffled[self.held_out :], shuffled[: self.held_out]
    train = whole["train"]
    return {
      "train": Images(train.pixels[kept], train.labels[kept]),
      "validation": Images(train.pixels[held], train.labels[held]),
      "test": whole["test"],
    }

  def train(self, process_index: int = 0, process_count: int = 1) -> Iterator[Batch]:
    """See data.task.Task; each epoch visits every image once, in a new order."""
    images = self.splits["train"]
    size = len(images.labels)
    epoch = functools.lru_cache(maxsize=2)(lambda index: draws.permutation(self.seed, "image_sequence", index, size))

    def rows(first: int, count: int) -> Batch:
      places = np.arange(first, first + count)
      return batch_of(images, np.array([epoch(place // size)[place % size] for place in places]))

    return pipeline.training(rows, self.batch, process_index, process_count)

  def eval_sets(self, process_index: int = 0, process_count: int = 1) -> dict[str, Callable[[], Iterator[Batch]]]:
    """'validation' and 'test'."""
    return {name: self._in_order(self.splits[name], process_index, process_count) for name in ("validation", "test")}

  def _in_order(self, images: Images, process_index: int, process_count: int) -> Callable[[], Iterator[Batch]]:
    return pipeline.evaluation(
      lambda first, count: batch_of(images, np.arange(first, first + count)),
      len(images.labels),
      self.batch,
      process_index,
      process_count,
    )

  def describe(self) -> dict[str, Any]:
    """The fields but for the folders, images of each split, and the checksum of all of them in order."""
    checksum = hashlib.sha256()
    for images in self.splits.values():
      checksum.update(images.pixels.tobytes())
      checksum.update(images.labels.astype("<i4").tobytes())
    fields = {key: x for key, x in dataclasses.asdict(self).items() if key not in ("dir", "cache")}
    sizes = {name: len(images.labels) for name, images in self.splits.items()}
    return {"task": "ImageSequence", **fields, **sizes, "sha256": checksum.hexdigest()}


def batch_of(images: Images, places: np.ndarray) -> Batch:
  """Normalised pixels `b t 1`, labels `b`, weights `b`."""
  pixels = (images.pixels[places].astype(np.float32) / 255 - MEAN) / STD
  return {
    "inputs": pixels.astype(np.float32)[..., None],
    "targets": images.labels[places],
    "weights": np.ones(len(places), np.float32),
  }
