"""Loads a run's config: fills in what it leaves out, and checks the settings that belong to no class of their own."""

import importlib.util
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from defaults import RUN
from hybrids import sections
from mistake import Mistake, hint
from training import config_file

SECTIONS = ("data", "model", "optimizer")
# seeds are int32 on the device
SEEDS = range(-(2**31), 2**31)


def load(config: ConfigDict | Mapping[str, Any] | str) -> ConfigDict:
  """Loads a run's whole config: checked, locked, and with the defaults of the keys that it leaves out.

  Data, model and optimizer have the defaults of the class or function that each is for, the others those of `defaults`.

  Args:
    config: the config itself, or its file and argument as `--config` takes them, `"configs/mqar.py:mixer=s5"`.
  Raises:
    Mistake: a section is missing, a key is unknown, or a value is out of its range.
  """
  given = _from_file(config).to_dict() if isinstance(config, str) else dict(config.items())
  plain = ConfigDict(given).to_dict()
  missing = [name for name in (*SECTIONS, "steps") if name not in plain]
  if missing:
    raise Mistake(f"the config has no {', '.join(missing)}; start from the one of configs/base.py")
  unknown = [name for name in plain if name not in (*SECTIONS, "steps", *RUN)]
  if unknown:
    raise Mistake(f"the config has no key {unknown[0]!r}{hint(unknown[0], (*SECTIONS, 'steps', *RUN))}")
  check_type("steps", plain["steps"], 0)
  for name in SECTIONS:
    if not isinstance(plain[name], Mapping):
      raise Mistake(f"config {name}={plain[name]!r}; it is a section, see configs/base.py")
  plain["model"] = sections.complete(sections.upgrade(plain["model"]))
  for name, default in RUN.items():
    if name == "evaluators":
      plain[name] = check_evaluators(plain.get(name, {}))
    elif isinstance(default, dict):
      check_keys(name, plain.get(name, {}), default)
      plain[name] = default | plain.get(name, {})
    else:
      check_type(name, plain.setdefault(name, default), default)
  complete = ConfigDict(plain)
  check(complete)
  return complete.lock()


def _from_file(text: str) -> ConfigDict:
  file, _, argument = text.partition(":")
  path = config_file.find(file)
  spec = importlib.util.spec_from_file_location(path.stem, path)
  assert spec is not None, path
  assert spec.loader is not None, path
  module = importlib.util.module_from_spec(spec)
  with config_file.blamed(path):
    spec.loader.exec_module(module)
    config = module.get_config(argument)
  if not isinstance(config, ConfigDict):
    raise Mistake(f"get_config() of {path} gives a {type(config).__name__}; it must return a ConfigDict")
  return config


def check(config: ConfigDict) -> None:
  """Raises a Mistake where a setting is out of its range; what a section's class checks itself is left to it."""
  for key, value, fine, need in (
    ("steps", config.steps, config.steps >= 0, "0 or more updates"),
    ("log_every", config.log_every, config.log_every >= 0, "0 (at the end alone) or more steps"),
    ("seed", config.seed, config.seed in SEEDS, "a whole number of 32 bits, e.g. 0"),
    ("mesh.cpu_devices", config.mesh.cpu_devices, config.mesh.cpu_devices >= 0, "0 (leave it alone) or more"),
    ("eval.every", config.eval.every, config.eval.every >= 0, "0 (at the end alone) or more steps"),
    ("eval.chunk", config.eval.chunk, config.eval.chunk >= 0, "0 (whole rows) or more tokens"),
    ("eval.batches", config.eval.batches, config.eval.batches >= 0, "0 (all) or more"),
    ("save.every", config.save.every, config.save.every >= 0, "0 (at the end alone) or more steps"),
    ("save.keep", config.save.keep, config.save.keep >= 0, "0 (all) or more checkpoints"),
    ("generate.seed", config.generate.seed, config.generate.seed in SEEDS, "a whole number of 32 bits, e.g. 0"),
    ("generate.tokens", config.generate.tokens, config.generate.tokens >= 0, "0 (none) or more"),
  ):
    if not fine or value >= 2**31:
      raise Mistake(f"{key}={value}; it must be {need}, and below 2^31")
  if config.init_only and not config.init_from:
    raise Mistake(f"init_only={config.init_only!r} chooses among the weights of init_from, which is empty; set both")


def check_evaluators(sections: Any) -> dict[str, Any]:
  """Returns the sections of the evaluators, each with a name and steps between two evaluations.

  Raises:
    Mistake: there is something else.
  """
  if not isinstance(sections, Mapping):
    raise Mistake(f"config evaluators={sections!r}; it holds a section for each evaluator, see docs/configs.md")
  for label, section in sections.items():
    if not isinstance(section, Mapping) or not isinstance(section.get("name"), str):
      raise Mistake(f"config evaluators.{label}={section!r}; it is a section with a name, e.g. 'task' or 'samples'")
    if label in ("eval", "train") or "/" in label:
      raise Mistake(
        f"config evaluators.{label}: the rows of metrics have that name already; choose another, without '/'"
      )
    every = section.get("every", 0)
    check_type(f"evaluators.{label}.every", every, 0)
    if every < 0:
      raise Mistake(f"evaluators.{label}.every={every}; it must be 0 (at the end alone) or more steps")
  return {label: dict(section) for label, section in sections.items()}


def check_keys(name: str, section: Any, taker: Callable[..., Any] | Mapping[str, Any]) -> None:
  """Checks a section against the function, or the defaults, that it is for.

  Raises:
    Mistake: it has a key that those do not know, or a value of another type than the default.
  """
  if isinstance(taker, Mapping):
    defaults = dict(taker)
  else:
    defaults = {key: parameter.default for key, parameter in inspect.signature(taker).parameters.items()}
  if not isinstance(section, Mapping):
    raise Mistake(f"config {name}={section!r}; it is a section with the keys {', '.join(defaults)}")
  for key, value in section.items():
    if key not in defaults:
      raise Mistake(f"config has no key '{name}.{key}'{hint(key, defaults)}; {name} has {', '.join(defaults)}")
    check_type(f"{name}.{key}", value, defaults[key])


def check_type(key: str, value: Any, default: Any) -> None:
  """Raises a Mistake where a value is not of the kind that its default is of; a default of None says nothing."""
  for kinds, taken, words in (
    (bool, bool, "true or false"),
    (int, int, "a whole number"),
    (float, (int, float), "a number"),
    (str, str, "text"),
    ((tuple, list), (tuple, list), "a sequence"),
  ):
    if isinstance(default, kinds):
      if not isinstance(value, taken) or (isinstance(value, bool) and kinds is not bool):
        raise Mistake(f"config {key}={value!r}; it must be {words}, e.g. {default!r}")
      return
