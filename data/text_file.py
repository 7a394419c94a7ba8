"""Any text: plain files, one document each, or JSON lines, one document a line under a key."""

import bz2
import dataclasses
import functools
import glob
import gzip
import json
import lzma
import os
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from data import pipeline
from data.hold_out import hold_out
from data.packing import Document, PackedText
from mistake import Mistake

LINES = ".jsonl"
KNOWN = (".txt", LINES)
UNPACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
# they hold text in a form that is not read here
FOREIGN = (".zip", ".tar", ".tgz", ".7z", ".zst", ".parquet", ".arrow", ".pdf", ".docx")


@dataclasses.dataclass(frozen=True)
class TextFile(PackedText):
  """Byte-level language modelling on the user's files; data/hold_out.py says which documents are held out.

  Attributes:
    files: a path, a glob, or a folder (its .txt and .jsonl files in any case, folders and links in it followed),
      relative to `dir`; empty for `dir` itself. Files of other endings are read as plain text when they are named or
      globbed; .gz, .bz2 and .xz are unpacked, other archives refused.
    validation_files: the same for validation; then nothing of `files` is held out.
    test_files: the same for a set "test", which is evaluated beside "validation". A file that is named for either of
      them is not trained on.
    key: where a line of JSON has its text.
    validation: share of the bytes held out where there are no `validation_files`. 1 is all of them, to evaluate a
      trained model on files; then there is nothing to train on.
  """

  dir: str = ""
  files: str = ""
  validation_files: str = ""
  test_files: str = ""
  key: str = "text"
  validation: float = 0.05

  def __post_init__(self) -> None:
    super().__post_init__()
    self.require("validation", 0 < self.validation <= 1, "a share above 0, e.g. 0.05, or 1 to evaluate all")

  @functools.cached_property
  def paths(self) -> Mapping[str, Sequence[pathlib.Path]]:
    """Returns the files of each setting, none of them in two."""
    globs = {key: getattr(self, key) for key in ("validation_files", "test_files")}
    own = {key: find(self.dir, value, key) for key, value in globs.items() if value}
    taken = {os.path.realpath(path) for paths in own.values() for path in paths}
    rest = [path for path in find(self.dir, self.files) if os.path.realpath(path) not in taken]
    if not rest:
      raise Mistake(f"data.files={self.files!r} names only files that are for validation or test too; add others")
    if len(taken) < sum(map(len, own.values())):
      raise Mistake(f"a file is named by data.validation_files and by data.test_files: {globs}; let them differ")
    return {"files": rest} | own

  def read(self) -> Mapping[str, Sequence[Document]]:
    """Reads the documents of all files, and holds out some for validation if it has no own; see `PackedText.read`.

    Raises:
      Mistake: nothing there, or a file that cannot be read or parsed; the message names it.
    """
    documents = {key: self._documents(key) for key in self.paths}
    train, own = documents["files"], documents.get("validation_files")
    if own is None and self.validation == 1:
      splits: Mapping[str, Sequence[Document]] = {"validation": train}
    else:
      splits = hold_out(train, self.validation) if own is None else {"train": train, "validation": own}
    return {**splits, "test": documents["test_files"]} if self.test_files else splits

  def _documents(self, key: str) -> list[Document]:
    documents = [d for path in self.paths[key] for d in parse(path, self.key) if d.text]
    if not documents:
      raise Mistake(f"data.{key}={getattr(self, key)!r} in data.dir={self.dir!r} hold no text: every file is empty")
    return documents

  def describe(self) -> dict[str, Any]:
    """Adds the paths as the config has them, the number of files, and what share was held out for validation."""
    names = {key: getattr(self, key) for key in ("dir", "files", "validation_files", "test_files")}
    facts = super().describe() | names | {"paths": sum(map(len, self.paths.values()))}
    return facts if self.validation_files else facts | {"validation_share": self.validation}


def find(folder: str, files: str, key: str = "files") -> list[pathlib.Path]:
  """Returns the files meant by data.dir and data.files (or another key), sorted, none twice.

  Raises:
    Mistake: there are none.
  """
  if not folder and not files:
    raise Mistake("task 'text_file' needs text: give data.files (a path or glob) or data.dir (a folder)")
  root = pipeline.folder("dir", folder)
  where = root / pipeline.folder(key, files)
  if where.is_dir():
    paths = distinct(path for path in walk(where) if ending(path) in KNOWN)
    if not paths:
      endings = " or ".join(KNOWN)
      raise Mistake(f"folder {str(where)!r} has no {endings} file: name others with data.{key}, e.g. data.{key}=*.md")
    return paths
  # a name with brackets may be a file's own
  names = [where] if where.is_file() else glob.glob(os.path.expanduser(files), root_dir=root, recursive=True)
  paths = distinct(root / name for name in names)
  if not paths:
    raise Mistake(f"no file matches {str(where)!r}: check data.dir={folder!r} and data.{key}={files!r}")
  return paths


def walk(root: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields every file below a folder, also below the folders that links lead to, each folder once."""
  visited: set[str] = set()
  for name, folders, files in os.walk(root, followlinks=True):
    real = os.path.realpath(name)
    if real in visited:
      folders.clear()
      continue
    visited.add(real)
    folders.sort()
    yield from (pathlib.Path(name, file) for file in files)


def distinct(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
  """Returns the regular files among the paths, sorted, each by the shortest of its paths."""
  files: dict[str, pathlib.Path] = {}
  for path in sorted(paths, key=lambda path: (len(path.parts), path)):
    if path.is_file():
      files.setdefault(os.path.realpath(path), path)
  return sorted(files.values())


def ending(path: pathlib.Path) -> str:
  """Returns the ending of a file's name in small letters, beneath that of a packed one: .jsonl of a.JSONL.gz."""
  inner = pathlib.PurePath(path.stem if path.suffix.lower() in UNPACK else path.name)
  return inner.suffix.lower()


def content(path: pathlib.Path) -> bytes:
  """Returns the bytes of a file, unpacked.

  Raises:
    Mistake: it cannot be read or unpacked.
  """
  if ending(path) in FOREIGN:
    raise Mistake(f"{str(path)!r} is no text but a {ending(path)} file; unpack or convert it to .txt or .jsonl first")
  try:
    packed = path.read_bytes()
  except OSError as error:
    raise Mistake(f"cannot read {str(path)!r}: {error.strerror}; check the path and its permissions") from error
  try:
    return UNPACK.get(path.suffix.lower(), bytes)(packed)
  except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
    raise Mistake(f"cannot unpack {str(path)!r}: {error}; it is damaged, or no {path.suffix} file") from None


def parse(path: pathlib.Path, key: str = "text") -> Iterator[Document]:
  """Yields the documents of one file.

  Raises:
    Mistake: it cannot be read, or a line is no JSON object with text under the key.
  """
  text = content(path)
  if ending(path) != LINES:
    yield Document(str(path), text)
    return
  for number, line in enumerate(text.splitlines(), 1):
    if line.strip():
      yield Document(f"{path}:{number}", text_of(line, key, f"{path}:{number}"))


def text_of(line: bytes, key: str, where: str) -> bytes:
  """Returns the text of one line of JSON, as UTF-8."""
  try:
    record = json.loads(line)
  except (ValueError, RecursionError) as error:
    raise Mistake(f"{where} is no JSON ({error}); a .jsonl file has one object a line") from None
  if not isinstance(record, dict):
    raise Mistake(f'{where} is no JSON object but a {type(record).__name__}; write {{{json.dumps(key)}: "…"}}')
  if not isinstance(record.get(key), str):
    texts = sorted(name for name, value in record.items() if isinstance(value, str))
    raise Mistake(f"{where} has no text under the key {key!r}; it has text under {texts}: set data.key")
  try:
    return record[key].encode()
  except UnicodeEncodeError as error:
    half = ascii(record[key][error.start])
    raise Mistake(
      f"{where}: character {error.start} of its text is {half}, half of a surrogate pair, which UTF-8 cannot hold; "
      "write the pair, or U+FFFD"
    ) from None
