"""A run's folder: its config, and whether another config may go on in it.

Also a config file itself: `--config training/workdir.py:DIR` is the config that the run in DIR was started with, which
is what leaving out `--config` means.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from hybrids import sections
from mistake import Mistake

CONFIG, DATA = "config.json", "data.json"
# what a run is; everything else may change when it is resumed
FIXED = ("seed", "data", "model", "optimizer")
# of those, what does not change what is trained
FREE = ("data.dir", "data.files", "data.cache", "data.eval_", "model.body.remat", "model.body.unroll")


def get_config(workdir: str) -> ml_collections.ConfigDict:
  """The config stored in a folder.

  Raises:
    ValueError: there is none, or it cannot be read.
  """
  stored = read_config(Path(workdir))
  if stored is None:
    raise Mistake(f"{workdir}/{CONFIG} does not exist, so there is no run to go on with; give --config")
  return ml_collections.ConfigDict(_with_tuples(stored))


def _with_tuples(value: Any) -> Any:
  """JSON's lists as the tuples that configs have, which alone can be set on the command line."""
  if isinstance(value, dict):
    return {key: _with_tuples(part) for key, part in value.items()}
  return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def read_config(workdir: Path) -> dict[str, Any] | None:
  """The stored config as plain JSON, or None."""
  path = workdir / CONFIG
  if not path.exists():
    return None
  try:
    stored = json.loads(path.read_text())
    if not isinstance(stored, dict):
      raise Mistake("it is not a JSON object")
  except (OSError, ValueError) as error:
    raise Mistake(f"{path} cannot be read ({error}); restore it, or use another --workdir") from None
  if "model" in stored:
    stored["model"] = sections.complete(sections.upgrade(stored["model"]))
  return stored


def check_config(workdir: Path, config: ml_collections.ConfigDict) -> None:
  """That a config may go on in a folder: seed, data, model and optimizer as they were.

  Raises:
    ValueError: a key differs; named with both values.
  """
  stored = read_config(workdir)
  if stored is None:
    return
  old, new = dict(_flat(stored)), dict(_flat(json.loads(config.to_json())))
  for key in dict.fromkeys([*new, *old]):
    fixed = key.split(".")[0] in FIXED and not key.startswith(FREE)
    if fixed and old.get(key, "absent") != new.get(key, "absent"):
      raise Mistake(
        f"{workdir} holds another run: {key} is {old.get(key, 'absent')!r} there and {new.get(key, 'absent')!r} here; "
        "use another --workdir, or the same settings"
      )


def warn_of_other_data(workdir: Path, facts: Mapping[str, Any]) -> None:
  """Says on standard error if a run goes on with other data than it had, which its config does not show."""
  path = workdir / DATA
  before = json.loads(path.read_text()) if path.exists() else facts
  if before.get("sha256") != facts.get("sha256"):
    print(
      f"warning: the data has changed since {path} was written: sha256 {before.get('sha256')} then, "
      f"{facts.get('sha256')} now; what was trained before saw the old data",
      file=sys.stderr,
    )


def write_json(path: Path, value: Any) -> None:
  """Writes a file that is there completely or not at all."""
  temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
  temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
  os.replace(temporary, path)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
  for key, value in tree.items():
    if isinstance(value, Mapping) and value:
      yield from _flat(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value
