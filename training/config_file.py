"""The file that `--config` names."""

from pathlib import Path

from mistake import Mistake, hint

FOLDER = Path(__file__).resolve().parents[1] / "configs"


def find(name: str) -> Path:
  """Returns the file of a config: a path from where the caller stands, one in the checkout, or a name: "mqar".

  Raises:
    Mistake: there is none, or it is no .py file.
  """
  own = [path for path in sorted(FOLDER.glob("*.py")) if "\ndef get_config(" in path.read_text()]
  places = (Path(name).expanduser() if name.startswith("~/") else Path(name), FOLDER.parent / name)
  for path in (*places, *(path for path in own if path.stem == name)):
    try:
      if path.suffix == ".py" and path.is_file():
        return path
    except (OSError, ValueError):
      # a name that no file can have
      continue
  beside = [str(path) for path in places[0].parent.glob("*.py") if not path.stem.startswith("_")] if "/" in name else []
  there = sorted({*beside, *(f"configs/{path.name}" for path in own)})
  close = hint(name, [*there, *(path.stem for path in own)])
  raise Mistake(f"--config={name} does not exist, or is no .py file{close}; there are {', '.join(there)}")
