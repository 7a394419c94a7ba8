"""Folders of safetensors files: the tensors' names and shapes at once, their numbers one tensor at a time.

Nothing here runs code from a file: no pickle is read, and names in an index stay inside the folder.
"""

import contextlib
import json
import math
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

import ending
from mistake import Mistake

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
# types that hold weights as they are; all others are numbers of a quantised model, or none
FLOATS = ("F64", "F32", "F16", "BF16")
INTEGERS = ("I64", "I32")
# first bytes of what torch.save writes: a zip archive, or a bare pickle
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x04", b"\x80\x05")
LISTED = 12
# the way out of a pickle; tied tensors are cloned, as safetensors stores nothing twice
CONVERT = (
  "safetensors.torch.save_file({name: x.clone() for name, x in torch.load(FILE, weights_only=True).items()}, "
  f"{SINGLE!r}) makes the other"
)


def some(names: Iterable[str]) -> str:
  """Returns the first few names, and how many more there are."""
  known = sorted(names)
  more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
  return ", ".join(known[:LISTED]) + more


def read_json(path: Path) -> dict[str, Any]:
  """Reads a JSON object.

  Raises:
    Mistake: the file is missing, or is no JSON object.
  """
  if not path.is_file():
    what = "is no file" if path.exists() else "does not exist"
    raise Mistake(f"{path} {what}; give a folder with {CONFIG} and {SINGLE}")
  try:
    value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
  except (OSError, ValueError, RecursionError) as error:
    raise Mistake(f"{path} cannot be read: {error}") from None
  if not isinstance(value, dict):
    raise Mistake(f"{path} holds a {type(value).__name__}, not a JSON object")
  return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """Returns the object, none of whose keys may stand twice."""
  found: dict[str, Any] = {}
  for key, value in pairs:
    if key in found:
      raise Mistake(f"the key {key!r} stands there twice")
    found[key] = value
  return found


class Tensors:
  """The tensors of one folder, whose files stay open until `close`.

  Args:
    renamed: regular expressions and what to put in their place, for files that name their tensors in an older way.

  Attributes:
    folder: its path.
    shapes: of every tensor, by name.
  Raises:
    Mistake: when made, if there are no weights, a file is damaged or missing, an index and its files disagree, or a
      tensor is quantised.
  """

  def __init__(self, folder: Path, renamed: Sequence[tuple[str, str]] = ()):
    self.folder = folder
    self._renamed = [(re.compile(pattern), new) for pattern, new in renamed]
    self._stored: dict[str, str] = {}
    self.shapes: dict[str, tuple[int, ...]] = {}
    self._file_of: dict[str, str] = {}
    self._kinds: dict[str, str] = {}
    self._stack = contextlib.ExitStack()
    self._open: dict[str, Any] = {}
    indexed = self._files()
    try:
      for file in sorted(set(indexed.values()) or {SINGLE}):
        self._add(file)
      for name, file in indexed.items():
        if self._file_of.get(self._name(name)) != file:
          raise Mistake(f"{folder / INDEX} says that {name} is in {file}, which does not hold it")
      if stray := set(self._stored.values()) - set(indexed or self._stored.values()):
        raise Mistake(f"{folder / INDEX} does not name these tensors of its files: {some(stray)}")
    except BaseException:
      self.close()
      raise

  def close(self) -> None:
    """Closes the files."""
    self._stack.close()

  def file(self, name: str) -> Path:
    """Returns the file that holds a tensor."""
    return self.folder / self._file_of[name]

  def read(self, name: str) -> np.ndarray:
    """Returns a tensor as it is stored.

    Raises:
      Mistake: it holds no plain floating point numbers.
    """
    if self._kinds[name] not in FLOATS:
      raise Mistake(
        f"{self.file(name)}: tensor {name} is {self._kinds[name]}, not one of {', '.join(FLOATS)}; quantised weights "
        "are not read: save the model in bfloat16 first"
      )
    return self._open[self._file_of[name]].get_tensor(self._stored[name])

  def integers(self, name: str) -> np.ndarray:
    """Returns a tensor of integers.

    Raises:
      Mistake: it holds others.
    """
    if self._kinds[name] not in INTEGERS:
      raise Mistake(f"{self.file(name)}: tensor {name} is {self._kinds[name]}, not one of {', '.join(INTEGERS)}")
    return self._open[self._file_of[name]].get_tensor(self._stored[name])

  def check_floats(self, names: Iterable[str]) -> None:
    """Raises a Mistake where one of the tensors cannot be read."""
    for name in names:
      if self._kinds[name] not in FLOATS:
        self.read(name)

  def _name(self, stored: str) -> str:
    for pattern, new in self._renamed:
      stored = pattern.sub(new, stored)
    return stored

  def _files(self) -> dict[str, str]:
    """Returns name -> file by the index; empty where there is a single file."""
    if not self.folder.is_dir():
      raise Mistake(f"{self.folder} is no folder; give one with {CONFIG} and {SINGLE}")
    index = self.folder / INDEX
    if not index.exists():
      if not (self.folder / SINGLE).is_file():
        pickles = [path.name for end in ("bin", "pth", "pt") for path in self.folder.glob(f"*.{end}")]
        others = pickles + sorted(path.name for path in self.folder.glob("*.safetensors"))
        what = f"; it has {some(others)}" if others else ""
        if pickles:
          what += f", and pickles are not read: where PyTorch is installed, {CONVERT}"
        raise Mistake(f"{self.folder} has neither {SINGLE} nor {INDEX}{what}")
      return {}
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
      raise Mistake(f"{index} has no 'weight_map' of tensors and their files")
    for name, file in names.items():
      if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
        raise Mistake(f"{index} puts {name} into {file!r}; it must be a .safetensors file of that same folder")
    missing = {file for file in names.values() if not (self.folder / file).is_file()}
    if missing:
      raise Mistake(f"{self.folder} lacks {len(missing)} of {len(set(names.values()))} files: {some(missing)}")
    return names

  def _add(self, file: str) -> None:
    path = self.folder / file
    try:
      opened = self._stack.enter_context(safe_open(path, framework="numpy"))
      slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError, ValueError) as error:
      with path.open("rb") as raw:
        pickled = raw.read(4).startswith(PICKLES)
      what = "is a pickle of PyTorch, which may run any code and is not read" if pickled else "is no whole safetensors"
      raise Mistake(f"{path} {what} ({error}); download or convert it again") from None
    self._open[file] = opened
    for stored, part in slices.items():
      name = self._name(stored)
      if name in self._file_of:
        raise Mistake(f"tensor {name} is in two files, {self.file(name)} and {path}")
      self._file_of[name], self._stored[name] = file, stored
      self.shapes[name], self._kinds[name] = tuple(part.get_shape()), part.get_dtype()


def write(
  folder: Path,
  config: Mapping[str, Any],
  tensors: Iterator[tuple[str, np.ndarray]],
  shard: float,
  beside: Sequence[Path] = (),
) -> None:
  """Writes config.json and the tensors into a new folder, which appears once it is complete.

  Args:
    shard: bytes after which the next file begins.
    beside: more files, of which the folder gets copies.
  Raises:
    Mistake: the folder exists and is not empty, or it cannot be written.
  """
  with new_folder(folder) as partial:
    sizes, names = _write_shards(partial, tensors, shard)
    if len(sizes) == 1:
      (partial / _shard(0)).rename(partial / SINGLE)
    else:
      final = [f"model-{i + 1:05}-of-{len(sizes):05}.safetensors" for i in range(len(sizes))]
      for i, name in enumerate(final):
        (partial / _shard(i)).rename(partial / name)
      index = {"metadata": {"total_size": sum(sizes)}, "weight_map": {name: final[i] for name, i in names.items()}}
      (partial / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    write_beside(partial, config, beside)


def write_beside(folder: Path, config: Mapping[str, Any], beside: Sequence[Path]) -> None:
  """Writes config.json into a new folder, and copies of more files."""
  (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
  for path in beside:
    shutil.copyfile(path, folder / path.name)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
  """Makes a folder beside `folder` to be filled, which takes its name once the block has ended well.

  Raises:
    Mistake: `folder` exists and is not empty, or a file cannot be written.
  """
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise Mistake(f"{folder} exists; give a folder that does not, or an empty one")
  target = folder.absolute()
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    with ending.unfinished(target) as partial:
      partial.mkdir()
      yield partial
  except (OSError, SafetensorError) as error:
    raise Mistake(f"{folder} cannot be written: {error}; give another folder, or make room") from None


def _write_shards(
  folder: Path, tensors: Iterator[tuple[str, np.ndarray]], shard: float
) -> tuple[list[int], dict[str, int]]:
  """Writes numbered files, and returns the bytes of each, and the number of each tensor's."""
  sizes: list[int] = []
  place: dict[str, int] = {}
  held: dict[str, np.ndarray] = {}

  def flush() -> None:
    # transformers asks for the metadata
    save_file(held, folder / _shard(len(sizes)), metadata={"format": "pt"})
    sizes.append(sum(array.nbytes for array in held.values()))
    held.clear()

  for name, array in tensors:
    assert name not in place, f"{name} is written twice"
    if held and sum(other.nbytes for other in held.values()) + array.nbytes > (shard or math.inf):
      flush()
    held[name] = np.ascontiguousarray(array)
    place[name] = len(sizes)
  flush()
  return sizes, place


def _shard(number: int) -> str:
  return f"{number}.part"
