"""Images as bytes, the next pixel of MNIST or CIFAR-10: image generation by pixels (van den Oord et al. 2016).

arXiv:1601.06759. Each image is a document of its pixels row by row, the colours of a pixel one after another; bits per
byte are bits per dimension. A row is an image, black standing before its first byte.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from data.image_sequence import KINDS, ImageSequence
from data.packing import Document
from data.pieces import Pieces


@dataclasses.dataclass(frozen=True)
class Pixels(Pieces):
  """Next-byte prediction on images.

  Attributes:
    length: bytes of a row: 784 for one image of MNIST, 3,072 for one of CIFAR-10.
    dataset, held_out, dir, cache: see `data.image_sequence.ImageSequence`.
  """

  length: int = 784
  dataset: str = "mnist"
  held_out: int = 6000
  dir: str = ""
  cache: str = ""

  def __post_init__(self) -> None:
    super().__post_init__()
    self._images()

  def _images(self) -> ImageSequence:
    return ImageSequence(dataset=self.dataset, held_out=self.held_out, dir=self.dir, cache=self.cache)

  @property
  def side(self) -> int:
    """Returns the pixels of a row of an image."""
    return round(KINDS[self.dataset].pixels ** 0.5)

  @property
  def channels(self) -> int:
    """Returns the bytes of a pixel."""
    return len(KINDS[self.dataset].mean)

  def read(self) -> Mapping[str, Sequence[Document]]:
    """Reads the images of each part; see `data.packing.PackedText.read`."""
    return {
      split: [Document(f"{split} {i}", image.tobytes()) for i, image in enumerate(images.pixels)]
      for split, images in self._images().splits.items()
    }
