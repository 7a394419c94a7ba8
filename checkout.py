"""Which code the names of this code base's packages mean: its own, or a package of the user's that is found first."""

import functools
import importlib.util
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent


@functools.cache
def warn_of_strangers() -> None:
  """Warns of every package here whose name `import` finds elsewhere, such as a notebook's own `data`."""
  # nothing imports tests/, a name that many have
  for folder in sorted({path.parent for path in ROOT.glob("*/__init__.py")} - {ROOT / "tests"}):
    try:
      spec = importlib.util.find_spec(folder.name)
    except (ImportError, ValueError):
      continue
    if spec and spec.origin and not Path(spec.origin).resolve().is_relative_to(folder):
      warnings.warn(
        f"import {folder.name} finds {spec.origin} and not {folder}, which fails what needs the latter: "
        f"rename yours, or put {ROOT} first in sys.path",
        RuntimeWarning,
        stacklevel=3,
      )
