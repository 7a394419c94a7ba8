"""The list of a checkpoint's files with their sizes and sha256, by which damage is found before it is restored.

Storage formats check little: a flipped bit in an array's data reads back as another number without any error. Files
that are not in the manifest are ignored, so that what a file system or a person leaves in the folder does no harm.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mistake import Mistake

NAME = "manifest.json"
# the entry that says which run saved the step
RUN = "run"


def _digest(path: Path) -> str:
  with open(path, "rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()


def _entries(folder: Path) -> list[Path]:
  return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != NAME)


def write(folder: Path, step: int, run: str = "") -> None:
  """Writes `manifest.json` into the folder of a finished step; it appears complete or not at all.

  Args:
    run: the identity of the run that saved it.
  """
  paths = _entries(folder)
  # hashing releases the interpreter lock: threads use the cores training leaves idle
  with ThreadPoolExecutor(4) as pool:
    digests = list(pool.map(_digest, paths))
  files = {p.relative_to(folder).as_posix(): {"size": p.stat().st_size, "sha256": d} for p, d in zip(paths, digests)}
  temporary = folder / f"{NAME}.tmp"
  with open(temporary, "w") as f:
    json.dump({"step": step, RUN: run, "files": files}, f, indent=1)
    f.flush()
    os.fsync(f.fileno())
  os.replace(temporary, folder / NAME)


def run_of(folder: Path) -> str:
  """Returns the identity of the run that saved a step; empty where its manifest does not name it."""
  try:
    return str(json.loads((folder / NAME).read_text()).get(RUN, "")) if (folder / NAME).is_file() else ""
  except (OSError, ValueError, AttributeError, RecursionError):
    return ""


def _read(folder: Path, step: int) -> dict[str, dict]:
  try:
    content = json.loads((folder / NAME).read_text())
    files = content["files"]
    if content["step"] != step or not files:
      raise Mistake(f"it is the manifest of step {content['step']} with {len(files)} files")
    for name, entry in files.items():
      int(entry["size"]), str(entry["sha256"])
      if Path(name).is_absolute() or ".." in Path(name).parts:
        raise Mistake(f"it names {name!r}, which is outside of the folder")
    return files
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
    raise Mistake(f"its {NAME} cannot be read ({type(e).__name__}: {e})") from e


def why_bad(folder: Path, step: int) -> str | None:
  """Compares every file of a step with its manifest. None: all match; otherwise the first difference in words."""
  try:
    if not any(folder.iterdir()):
      return "its folder is empty"
  except FileNotFoundError:
    return "it was deleted meanwhile"
  if (folder / NAME).is_symlink() or not (folder / NAME).is_file():
    return f"it has no {NAME} (the run ended before the save was complete, or the file was removed)"
  try:
    files = _read(folder, step)
  except (ValueError, OSError) as e:
    return str(e)

  def check(item: tuple[str, dict]) -> str | None:
    name, entry = item
    path = folder / name
    if path.is_symlink() or not path.is_file():
      return f"file {name} is {'no plain file' if path.exists() or path.is_symlink() else 'missing'}"
    try:
      size = path.stat().st_size
      if size != entry["size"]:
        return f"file {name} has {size} bytes, {entry['size']} were written"
      if _digest(path) != entry["sha256"]:
        return f"file {name} has changed since it was written (its sha256 differs)"
    except OSError as e:
      return f"file {name} cannot be read ({e.strerror})"
    return None

  with ThreadPoolExecutor(4) as pool:
    return next((reason for reason in pool.map(check, files.items()) if reason), None)
