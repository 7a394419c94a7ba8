"""A run's folder: its config, its journal, and whether another config may go on in it.

Also a config file itself: `--config training/workdir.py:DIR` is the config that the run in DIR was started with, which
is what leaving out `--config` means.

    DIR/config.json   the config, whole
    DIR/data.json     what the data is, sha256 included
    DIR/run.json      the journal: the run's identity, the last step saved, and what was changed on the way
"""

import json
import math
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_collections

import ending
from defaults import RUN
from hybrids import sections
from mistake import Mistake
from training import config_file, settings

CONFIG, DATA, JOURNAL = "config.json", "data.json", "run.json"
# the sections that identify a run; all others may change when it is resumed
FIXED = ("seed", "data", "model", "optimizer")
# keys of these sections that --from-step may change, as checkpoints stay the same
TUNABLE = tuple(
  f"optimizer.{key}"
  for key in ("lr", "schedule", "warmup", "final_lr", "decay", "weight_decay", "clip", "slow_lr", "eps", "b1", "b2")
)
# keys of these sections that evaluation and generation may change
LOOKING = (
  *("seed", "optimizer.", "data.batch", "data.length", "data.validation", "data.stateful"),
  *("model.dtype", "model.param_dtype", "model.max_len"),
)
# keys of these sections that do not change the result of training
FREE = (
  *("data.dir", "data.files", "data.validation_files", "data.test_files", "data.key", "data.cache", "data.eval_"),
  *("model.body.remat", "model.body.unroll"),
)
ABSENT = "absent"


def get_config(workdir: str) -> ml_collections.ConfigDict:
  """Returns the config stored in a folder, with defaults for keys that are newer than it.

  Raises:
    Mistake: there is none, or it cannot be read.
  """
  stored = read_config(Path(workdir))
  if stored is None:
    raise Mistake(f"{workdir} holds no run: it has no {CONFIG}; train first with --config, or give another --workdir")
  return settings.load(_with_tuples(stored))


def _with_tuples(value: Any) -> Any:
  """Turns JSON's lists into tuples, as configs have them: only tuples can be set on the command line."""
  if isinstance(value, dict):
    return {key: _with_tuples(part) for key, part in value.items()}
  return tuple(map(_with_tuples, value)) if isinstance(value, (list, tuple)) else value


def read_config(workdir: Path) -> dict[str, Any] | None:
  """Reads the stored config as plain JSON; None where there is none."""
  return _read(workdir / CONFIG)


def read_journal(workdir: Path) -> dict[str, Any]:
  """Reads the journal of the run in a folder; returns a new one where there is none."""
  fresh = {"id": uuid.uuid4().hex, "saved": 0, "changes": []}
  stored = _read(workdir / JOURNAL)
  if stored is None:
    return fresh
  for key, value in fresh.items():
    if type(stored.get(key)) is not type(value):
      raise Mistake(
        f"{workdir / JOURNAL} cannot be read ({key!r} is {stored.get(key)!r}, not a {type(value).__name__}); restore "
        "it, or move it away: its checkpoints know whose they are"
      )
  return stored


def _read(path: Path) -> dict[str, Any] | None:
  if not path.exists():
    return None
  try:
    if not path.is_file():
      # a pipe would be waited for
      raise Mistake("it is no plain file")
    stored = json.loads(path.read_text())
    if not isinstance(stored, dict):
      raise Mistake("it is not a JSON object")
  except (OSError, ValueError, RecursionError) as error:
    raise Mistake(f"{path} cannot be read ({error}); restore it, or use another --workdir") from None
  if "model" in stored:
    stored["model"] = sections.complete(sections.upgrade(stored["model"]))
  return stored


def changes(
  workdir: Path, config: ml_collections.ConfigDict, same: Mapping[str, Callable[[Any, Any], bool]]
) -> dict[str, tuple[Any, Any]]:
  """Maps the keys that make a config another run than the one stored in a folder to their values there and here.

  Args:
    same: of each section that a class or function takes, whether two of them make the same thing. It is asked where a
      key is absent on one side, which then means its default.
  """
  stored = read_config(workdir)
  if stored is None:
    return {}
  # a model's section is filled up with tuples, which JSON reads as lists
  stored, new = _with_tuples(stored), _with_tuples(plain(config))
  differ: dict[str, tuple[Any, Any]] = {}
  for section in FIXED:
    old = stored.get(section, RUN.get(section, {}))
    pairs = _differences(section, old, new[section])
    one_sided = {key for key, pair in pairs.items() if ABSENT in pair}
    if one_sided and section in same and same[section](old, new[section]):
      pairs = {key: pair for key, pair in pairs.items() if key not in one_sided}
    # keys that both configs have come first, as they explain a difference best
    differ |= dict(sorted(pairs.items(), key=lambda item: ABSENT in item[1]))
  return differ


def _differences(section: str, old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
  before, after = dict(config_file.flat({section: old})), dict(config_file.flat({section: new}))
  pairs = {key: (before.get(key, ABSENT), after.get(key, ABSENT)) for key in dict.fromkeys([*after, *before])}
  return {key: pair for key, pair in pairs.items() if pair[0] != pair[1] and not key.startswith(FREE)}


def refuse(workdir: Path, differ: Mapping[str, tuple[Any, Any]], allowed: tuple[str, ...] = ()) -> None:
  """Raises a Mistake where a key that is not allowed to differs from the run in the folder; it names both values."""
  for key, (old, new) in differ.items():
    if not key.startswith(allowed or "\0"):
      more = ", or --from-step N to go on from a checkpoint with this" if key in TUNABLE else ""
      raise Mistake(
        f"{workdir} holds another run: {key} is {old!r} there and {new!r} here; use another --workdir, or the same "
        f"settings{more}"
      )


def steps_before(workdir: Path, config: ml_collections.ConfigDict) -> int:
  """Returns `steps` of the config stored in a folder, or of this one where there is none."""
  return (read_config(workdir) or {}).get("steps", config.steps)


def check_data(workdir: Path, facts: Mapping[str, Any]) -> None:
  """Raises a Mistake where a run would go on with other data than it has seen, which its config does not show."""
  before = (_read(workdir / DATA) or {}).get("sha256", facts.get("sha256"))
  if before != facts.get("sha256"):
    raise Mistake(
      f"{workdir} was trained on other data: its sha256 was {before}, and is {facts.get('sha256')} now; restore the "
      "data, or use another --workdir with init_from to start from these weights"
    )


def evaluating(
  workdir: Path,
  stored: ml_collections.ConfigDict,
  config: ml_collections.ConfigDict,
  describe: Callable[[dict[str, Any]], Mapping[str, Any]],
) -> ml_collections.ConfigDict:
  """Returns a config that evaluates all of `data.files` where these are not the text that the run was trained on.

  The share for validation is held out of the run's own text alone; it stays if it was chosen for this evaluation.

  Args:
    describe: returns the facts about a task's data, given its section.
  """
  new, old = config.data.to_dict(), stored.data.to_dict()
  same = all(new.get(key) == old.get(key) for key in ("dir", "files"))
  if same or "files" not in new or new.get("validation_files") or new.get("validation") != old.get("validation"):
    return config
  try:
    facts = describe(new)
  except Mistake:
    # perhaps there is too little to hold out a share; if it is something else, the caller meets it again
    facts = {}
  if facts.get("sha256") == (_read(workdir / DATA) or {}).get("sha256"):
    # the same text, moved
    return config
  with config.copy_and_resolve_references().unlocked() as whole:
    whole.data.validation = 1.0
  return whole.lock()


def plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the config as JSON stores it."""
  return json.loads(config.to_json())


def write_json(path: Path, value: Any, *, exact: bool = False) -> None:
  """Writes a JSON file atomically: it appears complete or not at all.

  NaN and infinity, which JSON lacks, are null; where the file must come back as it was (`exact`), they are written as
  Python and the publishers of checkpoints write them.
  """
  write_text(path, json.dumps(value if exact else _finite(value), indent=2, sort_keys=True, allow_nan=exact) + "\n")


def _finite(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {key: _finite(part) for key, part in value.items()}
  if isinstance(value, (list, tuple)):
    return [_finite(part) for part in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def write_text(path: Path, text: str | bytes) -> None:
  """Writes text or bytes as `write_json` does.

  What stood under the name is replaced; if that was a link, its target stays as it was.
  """
  # "x" neither overwrites nor follows a link
  with ending.unfinished(path) as partial, open(partial, "xb") as file:
    file.write(text.encode() if isinstance(text, str) else text)
    file.flush()
    os.fsync(file.fileno())
