"""Builds mixers by their names, and checks the arguments a config gives them.

Adding a mixer is adding a file: its name is the file's name, and nothing else has to know. The contract is the base
class in `layers/mixer.py`.
"""

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
from flax.core import FrozenDict

from layers.fields import check_fields, fields
from layers.mixer import STATES, Mixer
from mistake import Mistake, hint, near

__all__ = ["STATES", "available", "build", "build_spec", "check_fields", "fields", "find", "frozen"]

FOLDERS = ("ssm", "attention", "hybrids.channel", "hybrids.wrap")
# folders of bodies, which have names as mixers do, but may change time and width
BODIES = ("hybrids.body",)
ROOTS = ("ssm", "attention", "hybrids")


def build(name: str | type[nn.Module], **kwargs: Any) -> nn.Module:
  """Builds the mixer of that name: `build("mamba", width=64)`, `build("ssm.selective.mamba.Mamba", width=64)`.

  Args:
    name: the name of a file under FOLDERS, the dotted path of a module or class under ROOTS, or a class itself, such as
      one defined in a notebook.
    kwargs: its fields; `parent` as in every Linen module.

  Raises:
    ValueError: no mixer has the name, or it has no such field, or a field it needs is missing.
  """
  cls = find(name)
  check_fields(cls, kwargs, f"mixer {getattr(name, '__name__', name)!r}")
  return cls(**kwargs)


def build_spec(spec: Mapping[str, Any], *, width: int, layer: int, depth: int, **kwargs: Any) -> nn.Module:
  """Builds the mixer of a config's section (`name` and fields) with its width and its place in the stack.

  Raises:
    ValueError: see `build`; or the section has no name, or a width of its own.
  """
  if "name" not in spec:
    raise Mistake(f"mixer {dict(spec)} has no name; choose from {sorted(available())}")
  if not isinstance(spec["name"], str | type):
    raise Mistake(f"a mixer is called {spec['name']!r}; its name must be a string")
  if spec.get("width", width) != width:
    raise Mistake(f"mixer {spec['name']!r} sets width={spec['width']} in a stack of width={width}; leave it out")
  known = fields(find(spec["name"]))
  # only fields with a default: a stack's own depth is the config's to say
  place = {key: value for key, value in (("layer", layer), ("depth", depth)) if known.get(key) is False}
  return build(**{"width": width, **place, **spec, **kwargs})


def offers(mixer: nn.Module) -> bool:
  """Returns whether a mixer, or the one that a wrapper holds, has arrays for the layers after it."""
  return hasattr(type(mixer), "offer") and getattr(mixer, "OFFERS", True)


def find(name: str | type[nn.Module]) -> type[nn.Module]:
  """Returns the class of a name. Of all the files that hold mixers, only that of the name is imported.

  Raises:
    ValueError: no mixer has the name, or its file does not have exactly one.
  """
  if isinstance(name, type):
    if not _is_mixer(name):
      raise Mistake(f"{name.__name__} is no mixer: it must be a subclass of layers.mixer.Mixer with a field width")
    return name
  return _load(name)


@functools.cache
def _load(name: str) -> type[nn.Module]:
  """Returns the class that a file of that name, or a dotted path, holds."""
  files = {**_files(BODIES), **_files(FOLDERS)}
  path = files.get(name, name)
  module, _, attribute = path.rpartition(".")
  if path not in files.values() and not (module.split(".")[0] in ROOTS and _is_module(module)):
    raise Mistake(_unknown(name))
  try:
    loaded = importlib.import_module(path if path in files.values() else module)
  except Exception as error:
    error.add_note(f"while importing the file of mixer {name!r}")
    raise
  mixers = _mixers_of(loaded)
  if path not in files.values():
    if attribute not in mixers:
      raise Mistake(f"{module} has no mixer {attribute!r}{hint(attribute, mixers)}; it defines {sorted(mixers)}")
    return mixers[attribute]
  if not mixers:
    raise Mistake(_unknown(name))
  if len(mixers) != 1:
    raise Mistake(f"{path} defines the mixers {sorted(mixers)}; name one by its dotted path, {path}.Name")
  return next(iter(mixers.values()))


@functools.cache
def available() -> dict[str, str]:
  """Returns name and module of every mixer, by importing every file under FOLDERS.

  A file that cannot be imported is listed too, so that whoever asks for it sees why.

  Raises:
    ValueError: two files have one name.
  """
  mixers = {}
  for name, module in _files(FOLDERS).items():
    try:
      defined = _mixers_of(importlib.import_module(module))
    except Exception:
      defined = {name: nn.Module}
    if defined:
      mixers[name] = module
  return mixers


def _unknown(name: str) -> str:
  choices = available()
  return f"no mixer is called {name!r}{near(name, choices, 'mixers')}, or give a dotted path under {list(ROOTS)}"


def frozen(value: Any) -> Any:
  """Returns a config's dicts and lists as FrozenDicts and tuples, so that modules which hold them can be hashed."""
  if isinstance(value, Mapping):
    return FrozenDict({key: frozen(item) for key, item in value.items()})
  return tuple(frozen(item) for item in value) if isinstance(value, list) else value


@functools.cache
def _files(folders: tuple[str, ...]) -> dict[str, str]:
  """Returns the dotted path of every Python file under some folders, by the file's name."""
  files: dict[str, str] = {}
  for folder in folders:
    spec = importlib.util.find_spec(folder)
    for root in map(Path, (spec.submodule_search_locations or ()) if spec else ()):
      for file in sorted(root.rglob("*.py")):
        module = ".".join((folder, *file.relative_to(root).with_suffix("").parts))
        if file.stem.startswith("_"):
          continue
        if file.stem in files:
          raise Mistake(f"two mixer files are called {file.stem!r}: {files[file.stem]} and {module}; rename one")
        files[file.stem] = module
  return files


def _is_module(path: str) -> bool:
  """Returns whether a dotted path is a module, found without importing it; only the packages above it are."""
  try:
    return importlib.util.find_spec(path) is not None
  except ModuleNotFoundError as error:
    if error.name is not None and (path == error.name or path.startswith(error.name + ".")):
      return False
    raise


def _mixers_of(module: Any) -> dict[str, Any]:
  """Returns the mixers that a module defines, by the names of their classes."""
  classes = inspect.getmembers(module, inspect.isclass)
  return {name: cls for name, cls in classes if cls.__module__ == module.__name__ and _is_mixer(cls)}


def _is_mixer(cls: type) -> bool:
  """Returns whether a class can be built as a mixer; a base class cannot, as its subclasses hold the mathematics."""
  base = issubclass(cls, Mixer) and cls.mix is Mixer.mix and cls.mix_parallel is Mixer.mix_parallel
  return issubclass(cls, nn.Module) and hasattr(cls, "STATE") and "width" in fields(cls) and not base
