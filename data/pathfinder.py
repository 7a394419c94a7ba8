"""Pathfinder of the Long Range Arena: do two discs stand at the ends of one dashed curve? (Tay et al. 2021).

arXiv:2011.04006; images of 32, 64, 128 and 256 pixels a side, read row by row: Pathfinder, Path-X (128) and Path-256.
data/snakes.py draws them. Label 1: one curve joins the discs; the classes are equally likely, chance is 1/2. The
published sets are 200,000 images of contours of 14 paddles, of which 160,000 are trained on.

Row r of a split is image r of its stream, whether it is drawn when it is asked for or read from files that
`./dev pathfinder` has made. Drawing takes about 0.01 s for 32 and 0.1 s for 128 pixels a side and CPU core, so that
training on more than a few thousand images wants files.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np

from data import pipeline, snakes
from data.generated import EVAL_SEED, Generated
from data.pipeline import Batch
from mistake import Mistake

# images of a file
SHARD = 1000
SCALES = ("unit", "centred", "tokens")
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Pathfinder(Generated):
  """Classify an image from its pixels, one a step.

  Attributes:
    side: pixels of each side.
    contour: paddles of the two long curves: 14, the published one, or 9 or 6, which are easier.
    train_rows: images of the training set, in a new order each epoch; 0 draws new ones for ever.
    scale: pixels are 0 … 1, "unit" as in S4's code, or -1 … 1, "centred" as in S5's, or the "tokens" 0 … 255, as for
      the Long Range Arena's Transformers.
    dir: a folder with the files of `./dev pathfinder`; empty to draw each image when it is asked for.
  Raises:
    Mistake: there are no such images.
  """

  batch: int = 64
  length: ClassVar[int]  # type: ignore[misc]
  vocab: ClassVar[int | None]  # type: ignore[misc]
  eval_rows: int = 2000
  side: int = 32
  contour: int = 14
  train_rows: int = 160000
  scale: str = "unit"
  dir: str = ""

  head: ClassVar[str] = "classifier"
  classes: ClassVar[int | None] = 2
  features: ClassVar[int | None]  # type: ignore[misc]

  def __post_init__(self) -> None:
    self.require_sizes()
    self.require("side", self.side in snakes.LEVELS, f"choose from {list(snakes.LEVELS)}")
    self.require("contour", self.contour in snakes.CONTOURS, f"choose from {snakes.CONTOURS}")
    self.require("scale", self.scale in SCALES, f"choose from {SCALES}")
    self.require("train_rows", self.train_rows >= 0, "at least 1, or 0 for new images for ever")

  @property  # type: ignore[no-redef]
  def length(self) -> int:
    """Returns how many pixels an image has."""
    return self.side**2

  @property  # type: ignore[no-redef]
  def vocab(self) -> int | None:
    """Returns how many tokens there are, or None where pixels are numbers."""
    return 256 if self.scale == "tokens" else None

  @property  # type: ignore[no-redef]
  def features(self) -> int | None:
    """Returns how many features a step has, or None where pixels are tokens."""
    return None if self.scale == "tokens" else 1

  def training_rows(self, first: int, rows: int) -> Batch:
    """Returns rows of the training stream; see `Generated.training_rows`."""
    numbers = np.arange(first, first + rows)
    if self.train_rows:
      numbers = pipeline.shuffled(self.seed, "pathfinder/order", first, rows, self.train_rows)
    return self.images(self.seed, "train", numbers)

  def validation_rows(self, first: int, rows: int) -> Batch:
    """Returns rows of the fixed validation set; see `Generated.validation_rows`."""
    return self.held_out("validation", first, rows)

  def held_out(self, split: str, first: int, rows: int) -> Batch:
    """Returns rows of the validation or the test set."""
    return self.images(EVAL_SEED, split, np.arange(first, first + rows))

  def eval_sets(self, process_index: int = 0, process_count: int = 1) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns 'validation' and 'test', each of `eval_rows` images."""
    return {
      split: pipeline.InOrder(
        functools.partial(self.held_out, split), self.eval_rows, self.batch, process_index, process_count
      )
      for split in SPLITS[1:]
    }

  def images(self, seed: int, split: str, numbers: np.ndarray) -> Batch:
    """Returns the images at `places` of a split."""
    make = functools.partial(read, pipeline.folder("dir", self.dir)) if self.dir else drawn
    rows = np.stack([make(seed, split, int(number), self.side, self.contour) for number in numbers])
    pixels = rows[:, :-1].astype(np.float32)[..., None] / 255
    inputs = {"unit": pixels, "centred": 2 * pixels - 1, "tokens": rows[:, :-1].astype(np.int32)}[self.scale]
    return {
      "inputs": np.asarray(inputs),
      "targets": rows[:, -1].astype(np.int32),
      "weights": np.ones(len(numbers), np.float32),
    }

  def describe(self) -> dict[str, object]:
    """Returns the fields but for the folder, whose images are those that would be drawn."""
    return {key: value for key, value in super().describe().items() if key != "dir"}


def drawn(seed: int, split: str, row: int, side: int, contour: int) -> np.ndarray:
  """Draws an image of a split: its pixels, then its label, uint8 `side² + 1`."""
  image = snakes.draw(seed, f"{split}/{side}/{contour}", row, side, contour)
  return np.append(image.image.ravel(), np.uint8(image.label))


def read(folder: pathlib.Path, seed: int, split: str, row: int, side: int, contour: int) -> np.ndarray:
  """Reads what `drawn` returns from a file of `./dev pathfinder`.

  Raises:
    Mistake: there is no such file, or it is cut short.
  """
  path = folder / shard_name(seed, split, row // SHARD, side, contour)
  try:
    images = opened(path)
  except (OSError, ValueError) as error:
    command = f"./dev pathfinder --side {side} --contour {contour} --seed {seed} --out {folder}"
    raise Mistake(f"cannot read {str(path)!r}: {error}; make it with {command}") from None
  if images.shape != (SHARD, side**2 + 1):
    raise Mistake(f"{str(path)!r} has {images.shape}, not {(SHARD, side**2 + 1)}: delete it and make it again")
  return np.asarray(images[row % SHARD])


@functools.lru_cache(maxsize=1024)
def opened(path: pathlib.Path) -> np.ndarray:
  """Maps the images of a file, which stay there until they are looked at."""
  return np.load(path, mmap_mode="r")


def shard_name(seed: int, split: str, shard: int, side: int, contour: int) -> str:
  """Returns the name of a file of images."""
  return f"pathfinder_{side}_{contour}_{split}_{seed if split == 'train' else EVAL_SEED}_{shard:04}.npy"
