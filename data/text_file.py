"""Any text: plain files, one document each, or JSON lines, one document a line under the key 'text'."""

import dataclasses
import glob
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data import pipeline
from data.packing import Document, PackedText
from mistake import Mistake

LINES = ".jsonl"
KNOWN = (".txt", LINES)
# held-out documents may exceed the share by this factor
ROOM = 1.1


@dataclasses.dataclass(frozen=True)
class TextFile(PackedText):
  """Byte-level language modelling on the user's files.

  Whole documents are held out, those with the smallest md5 of their text that fit into the share asked for, so that
  copies stay on one side and a document rarely changes sides when others come or go. Where all are too large for that,
  the end of each is held out.

  Attributes:
    files: a path, a glob, or a folder (its .txt and .jsonl files), relative to `dir`; empty for `dir` itself. Files of
      other endings are read as plain text when they are named or globbed.
    validation: share of the bytes held out.
  """

  dir: str = ""
  files: str = ""
  validation: float = 0.05

  def __post_init__(self) -> None:
    super().__post_init__()
    share = self.validation
    pipeline.require(type(self).__name__, "validation", share, 0 < share < 1, "a share between 0 and 1, e.g. 0.05")

  def read(self) -> Mapping[str, Sequence[Document]]:
    """See PackedText.

    Raises:
      ValueError: nothing there, or a file that cannot be read or parsed; the message names it.
    """
    documents = [d for path in find(self.dir, self.files) for d in parse(path) if d.text]
    if not documents:
      raise Mistake(f"data.files={self.files!r} in data.dir={self.dir!r} hold no text: every file is empty")
    return hold_out(documents, self.validation)

  def describe(self) -> dict[str, Any]:
    """Adds the paths as they were given and the number of files."""
    return super().describe() | {"dir": self.dir, "files": self.files, "paths": len(find(self.dir, self.files))}


def find(folder: str, files: str) -> list[pathlib.Path]:
  """The files meant by data.dir and data.files, sorted."""
  if not folder and not files:
    raise Mistake("task 'text_file' needs text: give data.files (a path or glob) or data.dir (a folder)")
  root = pathlib.Path(folder).expanduser()
  where = root / pathlib.Path(files).expanduser()
  if where.is_dir():
    paths = sorted(p for p in where.rglob("*") if p.suffix in KNOWN and p.is_file())
    if not paths:
      endings = " or ".join(KNOWN)
      raise Mistake(f"folder {str(where)!r} has no {endings} file: name others with data.files, e.g. data.files=*.md")
    return paths
  # a name with brackets may be a file's own
  names = [where] if where.is_file() else glob.glob(os.path.expanduser(files), root_dir=root, recursive=True)
  paths = sorted(root / name for name in names if (root / name).is_file())
  if not paths:
    raise Mistake(f"no file matches {str(where)!r}: check data.dir={folder!r} and data.files={files!r}")
  return paths


def parse(path: pathlib.Path) -> Iterator[Document]:
  """The documents of one file."""
  try:
    text = path.read_bytes()
  except OSError as error:
    raise Mistake(f"cannot read {str(path)!r}: {error.strerror}; check the path and its permissions") from error
  if path.suffix != LINES:
    yield Document(str(path), text)
    return
  for number, line in enumerate(text.splitlines(), 1):
    if line.strip():
      try:
        yield Document(f"{path}:{number}", json.loads(line)["text"].encode())
      except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Mistake(f"{path}:{number} is not a JSON object with a string under the key 'text'") from error


def hold_out(documents: Sequence[Document], share: float) -> Mapping[str, Sequence[Document]]:
  """Splits documents into 'train' and 'validation', neither empty.

  Raises:
    ValueError: there is too little text for both.
  """
  want = share * sum(len(d.text) for d in documents)
  held: set[bytes] = set()
  size = 0.0
  for text in sorted({d.text for d in documents}, key=lambda text: hashlib.md5(text, usedforsecurity=False).digest()):
    if size + len(text) <= ROOM * want:
      held.add(text)
      size += len(text)
  if held:
    train = [d for d in documents if d.text not in held]
    validation = [d for d in documents if d.text in held]
  else:
    cuts = [len(d.text) - round(share * len(d.text)) for d in documents]
    train = [Document(d.name, d.text[:cut]) for d, cut in zip(documents, cuts) if cut]
    validation = [Document(d.name, d.text[cut:]) for d, cut in zip(documents, cuts) if d.text[cut:]]
  if not train or not validation:
    raise Mistake(
      f"{size_of(documents)} are too little to hold out data.validation={share}: use more text or another share"
    )
  return {"train": train, "validation": validation}


def size_of(documents: Sequence[Document]) -> str:
  """'n documents of m bytes', for messages."""
  return f"{len(documents)} documents of {sum(len(d.text) for d in documents)} bytes"
