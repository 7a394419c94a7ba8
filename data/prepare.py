"""Checks a published data set and writes it as one file that the task `arrays` reads.

  python -m data.prepare                             lists the sets
  python -m data.prepare NAME --from DIR [--to DIR]  DIR holds the published files, or a folder NAME that does

Missing files are named with what is known of them: checksum, size and source. Files of another checksum, and numbers of
sequences other than the published ones, stop it; `--subset` takes fewer sequences. The sequences are made a part at a
time (a class, a split) and kept in DIR/NAME.parts until all are there, so that the same command goes on where it was
stopped; NAME.npz appears whole or not at all, and NAME.json beside it says what it is made of. Sets that a task reads
as they are published are counted only.
"""

import argparse
import collections
import json
import os
import pathlib
import shutil
import sys
import uuid
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import ending
import terminal
from arguments import Parser

if __name__ == "__main__":
  # before the imports, which take seconds
  ending.begin()

from data import original  # noqa: E402
from data.builders.published import SETS, Published  # noqa: E402
from data.original import File  # noqa: E402
from data.sequences import Sequences  # noqa: E402
from mistake import Mistake, hint  # noqa: E402

# name in the file -> field of `Sequences`; what a set lacks is left out
FIELDS = {"x": "values", "offsets": "starts", "y": "targets", "split": "split", "groups": "groups", "times": "times"}


def find(name: str) -> Published:
  """Returns a set by its name.

  Raises:
    Mistake: there is none.
  """
  if name not in SETS:
    raise Mistake(f"no set is called {name!r}{hint(name, SETS)}; choose from {', '.join(SETS)}")
  return SETS[name]


def verify(name: str, one: Published, folder: pathlib.Path) -> pathlib.Path:
  """Returns the folder that holds the files of a set, all of them as published where a checksum is known.

  Raises:
    Mistake: files are missing or others than the published ones.
  """
  if not folder.is_dir():
    raise Mistake(f"--from: {str(folder)!r} is no folder")
  folders = (folder / name, folder / one.folder, folder)
  root = original.find(f"--from {str(folder)!r}", folders, one.files, one.source)
  for file, facts in one.files.items():
    if facts != File():
      original.verify(root / file, facts, one.source)
  return root


def compare(name: str, counts: Mapping[str, int], counted: Mapping[str, int], *, subset: bool) -> None:
  """Refuses other numbers than the published ones.

  Raises:
    Mistake: a part has more, or, unless it is a subset, fewer.
  """
  wrong = {key: n for key, n in counts.items() if counted.get(key, 0) > n or (counted.get(key, 0) < n and not subset)}
  if wrong:
    text = ", ".join(f"{key}: {counted.get(key, 0):,} of {n:,}" for key, n in wrong.items())
    raise Mistake(f"{name} has other numbers than the published ones: {text}; get it anew, or take --subset")


def prepare(name: str, source: pathlib.Path, target: pathlib.Path, *, subset: bool, say: Callable[[str], Any]) -> None:
  """Does what the module says.

  Raises:
    Mistake: there is no such set, or its files are not the published ones.
  """
  one = find(name)
  folder = verify(name, one, source)
  command = one.command.replace("DIR", str(folder)).replace("FILE", str(target / f"{name}.npz"))
  if one.parts is None:
    assert one.find is not None, name
    counted = one.find(folder)
    compare(name, one.counts, counted, subset=subset)
    say(f"{name}: {counted}, as published; {command}")
    return
  target.mkdir(parents=True, exist_ok=True)
  file = target / f"{name}.npz"
  if not file.exists():
    made = {part: _part(target / f"{name}.parts" / f"{part}.npz", make, say) for part, make in one.parts(folder)}
    counted = _counted(made)
    compare(name, one.counts, counted, subset=subset)
    join(file, list(made.values()))
    left_out = sum((collections.Counter(_left_out(path)) for path in made.values()), collections.Counter())
    record = {
      "set": name,
      "files": {name: str(facts) for name, facts in one.files.items()},
      "source": one.source,
      "sequences": counted,
      "left out": dict(left_out),
    }
    _atomic(target / f"{name}.json", lambda path: path.write_text(json.dumps(record, indent=2) + "\n"))
    shutil.rmtree(target / f"{name}.parts")
  record = json.loads((target / f"{name}.json").read_text())
  say(f"{file}: {record['sequences']}{_said(record.get('left out', {}))}; {command}")


def _part(path: pathlib.Path, make: Callable[[], Sequences], say: Callable[[str], Any]) -> pathlib.Path:
  """Returns the file of a part, which is made unless it exists."""
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      sequences = make()
    except (ValueError, KeyError, IndexError) as error:
      raise error if isinstance(error, Mistake) else Mistake(f"{path.stem} cannot be read: {error}") from None
    arrays = {key: getattr(sequences, field) for key, field in FIELDS.items()}
    arrays = {key: array for key, array in arrays.items() if array is not None}
    if any(sequences.left_out.values()):
      # before the part, which is made anew unless it is there
      _atomic(_beside(path), lambda temporary: temporary.write_text(json.dumps(sequences.left_out)))
    _atomic(path, lambda temporary: np.savez(temporary, **arrays))
    say(f"{path.stem}: {len(sequences)} sequences{_said(sequences.left_out)}")
  return path


def _beside(path: pathlib.Path) -> pathlib.Path:
  return path.with_suffix(".left_out.json")


def _left_out(path: pathlib.Path) -> dict[str, int]:
  """Returns what of a part's files was not read."""
  return json.loads(_beside(path).read_text()) if _beside(path).exists() else {}


def _said(left_out: Mapping[str, int]) -> str:
  """Returns the end of a line that says in how many files something is left out."""
  return "".join(f"; {many:,} files {what}" for what, many in left_out.items() if many)


def _counted(parts: Mapping[str, pathlib.Path]) -> dict[str, int]:
  """Counts the sequences of all parts together, and of each split."""
  counts = {"all": 0}
  for path in parts.values():
    with np.load(path) as arrays:
      n = len(arrays["offsets"]) - 1
      counts["all"] += n
      for split in np.unique(arrays["split"]).tolist() if "split" in arrays else ():
        counts[split] = counts.get(split, 0) + int((arrays["split"] == split).sum())
  return counts


def join(file: pathlib.Path, parts: list[pathlib.Path]) -> None:
  """Writes one .npz with the arrays of all parts end to end; no more than one part is in memory."""
  with np.load(parts[0]) as first:
    names, kinds = list(first), {name: first[name].dtype for name in first}
  sizes, kinds = dict.fromkeys(names, 0), dict(kinds)
  for path in parts:
    with np.load(path) as arrays:
      for name in names:
        sizes[name] += len(arrays[name]) - (name == "offsets")
        kinds[name] = np.promote_types(kinds[name], arrays[name].dtype)
  sizes["offsets"] += 1

  def write(temporary: pathlib.Path) -> None:
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
      for name in names:
        with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
          _column(out, parts, name, sizes[name], kinds[name])

  _atomic(file, write)


def _column(out: Any, parts: list[pathlib.Path], name: str, size: int, kind: np.dtype) -> None:
  """Writes an array of all parts as numpy does; offsets go on where those of the part before end."""
  before = 0
  for number, path in enumerate(parts):
    with np.load(path) as arrays:
      array = arrays[name]
    if number == 0:
      header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (size, *array.shape[1:])}
      np.lib.format.write_array_header_2_0(out, header)
    if name == "offsets":
      last = int(array[-1])
      array = array[number > 0 :] + before
      before += last
    out.write(np.ascontiguousarray(array, kind).tobytes())


def _atomic(path: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> None:
  """Writes a file that appears whole or not at all."""
  temporary = path.with_name(f"{path.stem}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
  try:
    write(temporary)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def listing() -> str:
  """Returns a line for each set: what it needs, and where that is published."""
  return "\n".join(f"{name:40} {', '.join(one.files)}; from {one.source}" for name, one in SETS.items())


def main(argv: list[str] | None = None) -> int:
  """Prepares a set, or lists all. Exit code: 0, or 2 for what is wrong."""
  parser = Parser(
    prog="python -m data.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("name", nargs="?", help="of the set")
  parser.add_argument("--from", dest="source", type=pathlib.Path, help="folder of the published files")
  parser.add_argument("--to", type=pathlib.Path, help="folder of what is written; by default that of --from")
  parser.add_argument("--subset", action="store_true", help="take fewer sequences than are published")
  args = parser.parse_args(argv)
  try:
    if args.name is None and (args.source or args.to or args.subset):
      raise Mistake("the name of the set is missing; without any argument all are listed")
    if args.name is None:
      print(listing())
    elif args.source is None:
      raise Mistake(f"--from is missing; give the folder with {', '.join(find(args.name).files)}")
    else:
      source, target = args.source.expanduser(), (args.to or args.source).expanduser()
      prepare(args.name, source, target, subset=args.subset, say=lambda line: print(line, flush=True))
  except (Mistake, OSError) as error:
    print(f"prepare: {error}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(terminal.exit_code(main(), "prepare"))
