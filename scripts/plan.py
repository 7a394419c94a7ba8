"""The runs of a sweep: settings from a config's `get_sweep()` or from `--grid`, with digests of what each would run."""

import contextlib
import hashlib
import itertools
import json
import re
import runpy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from configs import grammar
from mistake import Mistake
from training import config_file

# file systems allow 255 bytes; a suffix of digest and comma must fit as well
LONGEST_NAME = 200


class Run(NamedTuple):
  """One setting of a sweep."""

  name: str  # of its folder
  overrides: dict[str, Any]
  config: str  # as main.py takes it: file and argument
  resolved: Any  # the config as JSON, None where the file does not give one
  digest: str  # of all that decides what runs
  origin: str  # digest of what all runs of this command share


def overrides(config: str) -> list[dict[str, Any]]:
  """Reads the override dicts of a config file.

  Raises:
    Mistake: no such file, no `get_sweep` in it, or one that gives nothing or the same setting twice.
  """
  path = config_file.find(config.partition(":")[0])
  with config_file.blamed(path):
    module = runpy.run_path(str(path))
  if "get_sweep" not in module:
    raise Mistake(
      f"--config: {path} has no get_sweep(); add one that yields dicts like dict(mixer='s5', lr=1e-3), or give "
      "--grid mixer=s5,mamba lr=1e-3,2e-3"
    )
  with config_file.blamed(path):
    given = [dict(each) for each in module["get_sweep"]()]
  return once(given, f"--config: get_sweep() of {path}")


def grid(grids: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
  """Returns the settings of `--grid lr=1e-3,2e-3 mixer=s5,mamba`: each value of a key with each of all others.

  Several grids stand beside each other, which is how a hybrid gets its letters: `--grid mixer=s5,mamba seed=0,1 --grid
  pattern=ma m=mamba a=softmax seed=0,1`. The first key varies slowest. A comma in brackets or quotes is no separator.

  Raises:
    Mistake: a part is not key=value,…, a key has no value or stands twice in a grid, or a setting comes twice.
  """
  settings: list[dict[str, Any]] = []
  for parts in grids:
    values = _values(parts, "--grid")
    settings += [dict(zip(values, chosen)) for chosen in itertools.product(*values.values())]
  return once(settings, "--grid")


def only(settings: list[dict[str, Any]], parts: Sequence[str]) -> list[dict[str, Any]]:
  """Returns the settings that have one of the given values of every given key: `--only size=64x4 lr=1e-3,2e-3`.

  Raises:
    Mistake: a part is malformed, or no setting has a value that is asked for; the message lists those there are.
  """
  kept = settings
  for key, wanted in _values(parts, "--only").items():
    there = list(dict.fromkeys(setting[key] for setting in settings if key in setting))
    for value in wanted:
      if value not in there:
        keys = ", ".join(dict.fromkeys(key for setting in settings for key in setting))
        choices = f"it is one of {', '.join(map(str, there))}" if there else f"settings have {keys}"
        raise Mistake(f"--only {key}={value}: no setting has it; {choices}")
    kept = [setting for setting in kept if setting.get(key) in wanted]
  if not kept:
    raise Mistake(f"--only {' '.join(parts)}: no setting has all of it; each key alone has some")
  return kept


def seeded(settings: list[dict[str, Any]], seeds: str) -> list[dict[str, Any]]:
  """Returns every setting with each of the seeds of `--seeds 0,1,2`, seed by seed.

  Raises:
    Mistake: a seed is not a number, or a setting has one already.
  """
  (values,) = _values([f"seed={seeds}"], "--seeds").values()
  for value in values:
    # true is an int to Python
    if type(value) is not int:
      raise Mistake(f"--seeds {seeds}: {value!r} is no whole number; write e.g. --seeds 0,1,2")
  if any("seed" in setting for setting in settings):
    raise Mistake("--seeds: settings have seeds of their own; choose among them by --only seed=0,1")
  return once([setting | {"seed": value} for value in values for setting in settings], "--seeds")


def _values(parts: Sequence[str], flag: str) -> dict[str, list[Any]]:
  """Reads `key=value,…` parts; a comma in brackets or quotes is no separator."""
  values: dict[str, list[Any]] = {}
  for part in parts:
    key, equals, text = part.partition("=")
    if not (key.strip() and equals and text.strip()):
      raise Mistake(f"{flag} {part!r} is not key=value,…; write e.g. {flag} lr=1e-3,2e-3 mixer=mamba,s5 seed=0,1,2")
    if key.strip() in values:
      where = ", or in a --grid of their own" if flag == "--grid" else ""
      raise Mistake(f"{flag} {part!r}: {key.strip()} stands twice; give its values once{where}")
    commas, _ = grammar.outline(text)
    words = [text[i:j] for i, j in zip([0, *(i + 1 for i in commas)], [*commas, len(text)])]
    if not all(word.strip() for word in words):
      raise Mistake(f"{flag} {part!r} has an empty value; write '' for empty text")
    values[key.strip()] = [grammar.literal(word, key) for word in words]
  return values


def once(settings: list[dict[str, Any]], source: str) -> list[dict[str, Any]]:
  """Returns the settings as they are; raises a Mistake where there is none, or one twice."""
  arguments = [argument(setting) for setting in settings]
  if not settings or len(set(arguments)) < len(arguments):
    twice = sorted({each for each in arguments if arguments.count(each) > 1})
    raise Mistake(f"{source} gives " + (f"{twice} more than once" if settings else "nothing"))
  return settings


def plan(config: str, flags: list[str], settings: Sequence[dict[str, Any]]) -> list[Run]:
  """Plans the runs of these settings of a config file, with digests of what each would run.

  Raises:
    Mistake: the config cannot be found; or two settings would run the same, which would count as two.
  """
  name, _, shared_text = config.partition(":")
  file = config_file.find(name)
  grammar.pairs(shared_text)
  with config_file.blamed(file):
    module = runpy.run_path(str(file))
  if "get_config" not in module:
    raise Mistake(f"--config: {file} has no get_config(); see docs/configs.md")
  get_config, source = module["get_config"], file.read_text()

  def resolve(text: str) -> Any:
    # what is wrong with a config is for main.py to say, run by run
    with contextlib.suppress(Exception):
      return json.loads(get_config(text).to_json())

  shared = resolve(shared_text)
  origin = digest(shared if shared is not None else [source, shared_text], flags)
  runs = []
  for setting in settings:
    text = argument(setting)
    whole = joined(config, setting)
    resolved = resolve(whole.partition(":")[2])
    identity = digest(resolved if resolved is not None else [source, shared_text], text, flags)
    runs.append(Run(run_name(setting), setting, whole, resolved, identity, origin))
  _check_distinct(runs, flags)
  return runs


def _check_distinct(runs: Sequence[Run], flags: Sequence[str]) -> None:
  """Raises a Mistake where settings such as lr=1 and lr=1.0 make one config, or a flag undoes what they change."""
  known = [(run, flat) for run in runs if run.resolved is not None for flat in [dict(config_file.flat(run.resolved))]]
  first: dict[str, Run] = {}
  for run, flat in known:
    same = first.setdefault(json.dumps(flat, sort_keys=True), run)
    if same is not run:
      raise Mistake(f"settings {argument(same.overrides)!r} and {argument(run.overrides)!r} are the same run; drop one")
  keys = sorted({key for _, flat in known for key in flat})
  changed = [key for key in keys if len({json.dumps(flat.get(key)) for _, flat in known}) > 1]
  for flag in flags:
    name = flag.lstrip("-").partition("=")[0].removeprefix("config.")
    if flag.startswith("-") and (key := next((key for key in changed if f"{key}.".startswith(f"{name}.")), "")):
      raise Mistake(f"flag {flag} after -- sets {key} for all runs, which the settings change; leave one of them out")


def joined(config: str, setting: Mapping[str, Any]) -> str:
  """Returns the config's file and argument with the setting's pairs after it, as main.py takes them."""
  name, _, text = config.partition(":")
  return f"{config_file.find(name)}:{','.join(filter(None, (text, argument(setting))))}"


def digest(*parts: Any) -> str:
  """Returns twelve hexadecimal digits that tell JSON values apart."""
  return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()[:12]


def run_name(setting: Mapping[str, Any]) -> str:
  """Returns the folder of a run: its overrides, with odd characters replaced and what is too long cut."""
  name = re.sub(r"[^A-Za-z0-9=.,+-]", "_", argument(setting)) or "default"
  return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]},{digest(argument(setting))}"


def argument(setting: Mapping[str, Any]) -> str:
  """Writes `{'mixer': 's5', 'lr': 0.001}` as `mixer=s5,lr=0.001`, which config files take."""
  texts = {key: grammar.quoted(value) if isinstance(value, str) else value for key, value in setting.items()}
  return ",".join(f"{key}={text}" for key, text in texts.items())
