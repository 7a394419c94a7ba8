"""The Python standard library's own source: eleven million bytes of real text that every machine has.

Every `.py` file under the interpreter's library folder except tests and installed packages. A file belongs to
validation iff the md5 of its relative path is a multiple of 20, so that a file stays on its side from version to
version; Python 3.12.1 gives 686 files, 11,574,468 bytes, 389,974 of them validation. `describe()` records version and
checksum, as results hold for one version only.
"""

import dataclasses
import hashlib
import os
import pathlib
import platform
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data.packing import Document, PackedText
from mistake import Mistake

SKIP = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
ONE_IN = 20


@dataclasses.dataclass(frozen=True)
class Bytes(PackedText):
  """Next-byte prediction on the standard library of the running Python."""

  def read(self) -> Mapping[str, Sequence[Document]]:
    """Reads the sources of the standard library, each a document; see `PackedText.read`.

    Raises:
      ValueError: this Python has no library folder with sources (a frozen or zipped installation).
    """
    root = pathlib.Path(sysconfig.get_path("stdlib"))
    splits: dict[str, list[Document]] = {"train": [], "validation": []}
    for name in sorted(sources(root), key=lambda name: name.split("/")):
      if text := (root / name).read_bytes():
        splits["validation" if held_out(name) else "train"].append(Document(name, text))
    if not all(splits.values()):
      raise Mistake(
        f"no standard library sources under {str(root)!r}: use a full Python installation, or configs/text.py"
      )
    return splits

  def describe(self) -> dict[str, Any]:
    """Returns the facts about the text and the Python version."""
    return super().describe() | {"python": platform.python_version()}


def sources(root: pathlib.Path) -> Iterator[str]:
  """Returns the relative path of every Python file under a folder; tests and installed packages are not even listed."""
  for folder, folders, files in os.walk(root):
    folders[:] = set(folders) - SKIP
    for file in files:
      if file.endswith(".py"):
        yield pathlib.Path(folder, file).relative_to(root).as_posix()


def held_out(name: str) -> bool:
  """Returns whether the file of this relative path is in the validation split."""
  return int(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(), 16) % ONE_IN == 0
