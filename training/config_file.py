"""The file that `--config` names, and the keys of what it returns."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mistake import Mistake, hint

FOLDER = Path(__file__).resolve().parents[1] / "configs"
# configs/base.py can be run, but holds what the others share
BASE = FOLDER / "base.py"


def all_in(folder: Path) -> list[Path]:
  """Returns the config files of a folder: those that have a `get_config`, but for what they all start from."""
  files = (path for path in sorted(folder.glob("*.py")) if path.is_file() and path.resolve() != BASE)
  return [path for path in files if path.stem != "__init__" and "get_config" in path.read_text(errors="replace")]


def find(name: str) -> Path:
  """Returns the file of a config: a path from where the caller stands, one in the checkout, or a name: "mqar".

  Raises:
    Mistake: there is none, or it is no .py file.
  """
  own = all_in(FOLDER)
  places = (Path(name).expanduser() if name.startswith("~/") else Path(name), FOLDER.parent / name)
  for path in (*places, *(path for path in own if path.stem == name)):
    try:
      if path.suffix == ".py" and path.is_file():
        return path
    except (OSError, ValueError):
      # a name that no file can have
      continue
  beside = map(str, all_in(places[0].parent)) if "/" in name else ()
  there = sorted({*beside, *(f"configs/{path.name}" for path in own)})
  close = hint(name, [*there, *(path.stem for path in own)])
  known = "--list configs names those of this code base" if close else f"there are {', '.join(there)}"
  raise Mistake(f"--config={name} does not exist, or is no .py file{close}; {known}")


@contextlib.contextmanager
def blamed(path: Path) -> Iterator[None]:
  """Turns whatever the code of a config file raises inside into a Mistake that names the file."""
  try:
    yield
  except Mistake:
    raise
  except (Exception, SystemExit) as error:
    reason = " ".join(str(error).split())[:300]
    raise Mistake(f"config file {path} failed: {type(error).__name__}: {reason}; correct it") from error


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
  """Yields the values of nested sections by their full paths, `optimizer.lr`; an empty section is a value."""
  for key, value in tree.items():
    if isinstance(value, Mapping) and value:
      yield from flat(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value
