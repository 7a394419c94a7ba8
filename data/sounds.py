"""Sound as bytes, the next sample of .wav files by 8-bit codes: YouTubeMix, SC09, Beethoven or recordings of one's own.

SaShiMi's tasks (Goel et al. 2022, arXiv:2202.09729): mu-law codes, q = round(255 (F(x) + 1) / 2) with F(x) = sign(x)
ln(1 + 255 |x|) / ln 256, or linear ones. Bits per byte are bits per sample. A row is a piece of one file; silence
stands before its first sample.

A folder with validation_list.txt and testing_list.txt (Speech Commands) has its own parts, as has one with subfolders
train, validation (or valid) and test; otherwise whole files are held out as data/hold_out.py says.
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from data import pipeline
from data.hold_out import hold_out
from data.packing import Document
from data.pieces import Pieces
from data.sequences import read_sounds
from mistake import Mistake

CODES = ("mu_law", "linear")
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
FOLDERS = {"train": "train", "validation": "validation", "valid": "validation", "test": "test"}
LEVELS = 256


@dataclasses.dataclass(frozen=True)
class Sounds(Pieces):
  """Next-sample prediction over 256 codes.

  Attributes:
    dir: the folder of the files, read with all folders in it.
    pattern: a regular expression for paths of files below it.
    code: "mu_law" or "linear".
    validation: share of the samples held out, where the folder has no parts of its own.
  """

  START: ClassVar[int] = 128

  length: int = 16000
  dir: str = ""
  pattern: str = r".*\.wav"
  code: str = "mu_law"
  validation: float = 0.06

  def __post_init__(self) -> None:
    super().__post_init__()
    self.require_all(
      ("validation", 0 < self.validation < 1, "a share between 0 and 1, e.g. 0.06"),
      ("code", self.code in CODES, f"choose from {CODES}"),
    )

  def read(self) -> Mapping[str, Sequence[Document]]:
    """Reads all files; see `data.packing.PackedText.read`.

    Raises:
      Mistake: there is no such file, or one cannot be read or has several channels, or another rate than the first.
    """
    self.require("dir", bool(self.dir), "name a folder of .wav files")
    root = pipeline.folder("dir", self.dir)
    paths = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*.wav"))}
    chosen = {name: path for name, path in paths.items() if re.fullmatch(self.pattern, name)}
    if not chosen:
      raise Mistake(
        f"folder {str(root)!r} has {len(paths)} .wav files, none of which data.pattern={self.pattern!r} fits"
      )
    documents = {}
    for (name, path), samples in zip(chosen.items(), read_sounds(chosen.values())):
      if samples.shape[1] != 1:
        raise Mistake(f"{str(path)!r} has {samples.shape[1]} channels; mix them to one first")
      documents[name] = Document(name, encode(samples[:, 0], self.code).tobytes())
    parts = own_parts(root, list(documents))
    if parts is None:
      return hold_out(list(documents.values()), self.validation)
    names = {part: [name for name in documents if parts[name] == part] for part in ("train", "validation", "test")}
    return {part: [documents[name] for name in chosen] for part, chosen in names.items() if chosen}

  def sound(self, codes: np.ndarray) -> np.ndarray:
    """Turns codes into samples -1 … 1."""
    return decode(codes, self.code)


def own_parts(root: pathlib.Path, names: Sequence[str]) -> dict[str, str] | None:
  """Returns the part of each file, by lists or by the folders they are in; None where a folder has neither."""
  if all((root / file).is_file() for file in LISTS.values()):
    listed = {name: part for part, file in LISTS.items() for name in (root / file).read_text().split()}
    return {name: listed.get(name, "train") for name in names}
  parts = {name: FOLDERS.get(name.partition("/")[0], "") for name in names}
  return parts if {"train", "validation"} <= set(parts.values()) and "" not in parts.values() else None


def encode(samples: np.ndarray, code: str = "mu_law") -> np.ndarray:
  """Turns samples -1 … 1 into codes, uint8."""
  if code == "mu_law":
    samples = np.sign(samples) * np.log1p((LEVELS - 1) * np.abs(samples)) / np.log(LEVELS)
  return np.rint((np.clip(samples, -1, 1) + 1) / 2 * (LEVELS - 1)).astype(np.uint8)


def decode(codes: np.ndarray, code: str = "mu_law") -> np.ndarray:
  """Turns codes into samples -1 … 1, float32."""
  values = 2 * np.asarray(codes, np.float32) / (LEVELS - 1) - 1
  if code == "mu_law":
    values = np.sign(values) * np.expm1(np.abs(values) * np.float32(np.log(LEVELS))) / (LEVELS - 1)
  return values.astype(np.float32)
