"""Files as their authors publish them: one that is missing or another one is named with size, checksum and source."""

import hashlib
import pathlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mistake import Mistake

CHUNK = 2**20


class File(NamedTuple):
  """Holds what is known of a published file.

  Attributes:
    checksum: "sha256:…" or "md5:…"; empty where none is published.
    size: bytes; 0 where it is not known.
  """

  checksum: str = ""
  size: int = 0

  def __str__(self) -> str:
    size = f"{self.size:,} bytes" if self.size else "size not known"
    return f"{size}, {self.checksum.replace(':', ' ') or 'no checksum is published'}"


def listed(files: Mapping[str, File], names: Iterable[str] | None = None) -> str:
  """Returns the names of files, all by default, each with its size and checksum."""
  return ", ".join(f"{name} ({files[name]})" for name in (files if names is None else names))


def find(where: str, folders: Iterable[pathlib.Path], files: Mapping[str, File], source: str) -> pathlib.Path:
  """Returns the one of some folders that holds the files, or patterns of files.

  Args:
    where: how an error names the folders: the setting that they come from.
    source: where the files are published.
  Raises:
    Mistake: no folder has all of them; says what is missing in the one that has most.
  """
  has = lambda folder, name: any(folder.glob(name)) if "*" in name else (folder / name).exists()
  root = max(folders, key=lambda folder: sum(has(folder, name) for name in files))
  missing = [name for name in files if not has(root, name)]
  if missing:
    inside = f" (folder {str(root)!r})" if str(root) not in where and len(missing) < len(files) else ""
    raise Mistake(
      f"{where}{inside} lacks {len(missing)} of {len(files)} files: {listed(files, missing)}; get them from {source}"
    )
  return root


def verify(path: pathlib.Path, file: File, source: str) -> None:
  """Checks that a file is byte for byte the published one, as far as that is known.

  Raises:
    Mistake: it cannot be read or has another size or checksum.
  """
  kind, _, expected = file.checksum.partition(":")
  digest, size = hashlib.new(kind or "sha256", usedforsecurity=False), 0
  try:
    with path.open("rb") as opened:
      while data := opened.read(CHUNK):
        digest.update(data)
        size += len(data)
  except OSError as error:
    raise Mistake(f"cannot read {str(path)!r}: {error.strerror}; {file}; get it from {source}") from None
  if (expected and digest.hexdigest() != expected) or (file.size and size != file.size):
    found = File(f"{kind or 'sha256'}:{digest.hexdigest()}", size)
    raise Mistake(f"{str(path)!r} is not the published file: {found}; expected {file}; get it from {source}")
