"""Files that appear under their name when they are whole."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ending
from mistake import Mistake


@contextlib.contextmanager
def writing(path: str | Path, *, binary: bool = False) -> Iterator[Any]:
  """Opens a file to write, which replaces what stands under `path` once the block has ended well.

  Links are followed. A device or a pipe is written to as it is, and nothing takes its place.

  Raises:
    Mistake: the folder does not exist, `path` is a folder, or the file cannot be written.
  """
  target = path
  path = check(target)
  text: dict[str, Any] = {} if binary else {"encoding": "utf-8"}
  kind = "b" if binary else ""
  try:
    if os.path.exists(target) and not os.path.isfile(target):
      with open(target, f"w{kind}", **text) as file:
        yield file
      return
    with ending.unfinished(path) as partial, open(partial, f"x{kind}", **text) as file:
      yield file
  except OSError as error:
    raise Mistake(f"{target} cannot be written: {error.strerror or error}; give another file, or make room") from None


def check(target: str | Path) -> Path:
  """Returns the path that `writing` will write to, links followed.

  Raises:
    Mistake: the folder does not exist, or `target` is a folder.
  """
  if not str(target) or "\0" in str(target) or os.path.isdir(target):
    raise Mistake(f"{str(target)!r} is a folder or no name; name a file to write")
  path = Path(os.path.realpath(target))
  if not path.parent.is_dir():
    what = "is a file" if path.parent.exists() else "does not exist; make it first"
    raise Mistake(f"{target} cannot be written: the folder {path.parent} {what}")
  return path
