"""Tiny Shakespeare as bytes: a small, even text that many code bases report on."""

import dataclasses
from collections.abc import Mapping, Sequence

from data.packing import Document, PackedText


@dataclasses.dataclass(frozen=True)
class TinyShakespeare(PackedText):
  """Next-byte prediction; 65 of the 256 bytes occur.

  Attributes:
    dir: a folder with input.txt, or with tiny_shakespeare/input.txt; empty to download it.
    cache: where the prepared data set is kept; empty for the user's cache folder.
  """

  dir: str = ""
  cache: str = ""

  def read(self) -> Mapping[str, Sequence[Document]]:
    """Reads 'train', 'validation' and 'test', each one document.

    Raises:
      ValueError: the file is missing, is not the published one or cannot be downloaded.
    """
    # tensorflow-datasets takes more than a second to import
    from data.builders import shakespeare

    return {split: [Document(split, text)] for split, text in shakespeare.load(self.dir, self.cache).items()}
