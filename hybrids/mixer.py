"""What a mixer is, and how one is built by its name.

A mixer turns "b t d" into "b t d" and can be stopped and resumed anywhere. Adding one is adding a file: its name is the
file's name, and nothing else has to know.
"""

import dataclasses
import difflib
import functools
import importlib
import importlib.util
import inspect
import numbers
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
from flax.core import FrozenDict
from jaxtyping import Array, Bool, Float, Int

from mistake import Mistake

FOLDERS = ("ssm", "attention", "hybrids.channel", "hybrids.wrap")
ROOTS = ("ssm", "attention", "hybrids")
STATES = ("fixed", "window", "grows", "whole input", "none")


@runtime_checkable
class Mixer(Protocol):
  """`prefill` is the definition: `__call__(x)` is prefill from `init_state`, `step` is prefill of one token.

  Implementations are Linen modules with `setup`, which do not import this; the contract tests hold them to it.

  Attributes (written without annotations, or Linen takes them for fields; they may be properties):
    STATE: how the state grows. "fixed"; "window", at most a constant number of tokens; "grows", with every token up to
      `max_len`; "whole input", a buffer of `max_len` inputs; "none", it reads the whole sequence at once and offers
      `__call__` alone.
    SLOW: names of parameters that want a small learning rate and no weight decay.
    SIDE: names of the optional inputs per token it takes in `side`.
  A mixer with fields `layer` (counted from 0) and `depth`, both with defaults, is told its place in the stack. `layer`
  is for initialisers only: in a scanned stack one program runs every layer.
  A mixer may have `offer(x, state, *, reset, lengths) -> Mapping[str, "b t ..."]`, called with what its `prefill` gets;
  the stack adds these arrays to `side` for the layers after it, and the first offer of a name stands.
  """

  STATE: str
  SLOW: tuple[str, ...]
  SIDE: tuple[str, ...]

  def init_state(self, batch: int, max_len: int) -> Any:
    """The state before any token: a NamedTuple, the batch first in every leaf. Needs no parameters (`@nn.nowrap`)."""

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b t d"]:
    """All outputs at once; 0 past `lengths`. `reset` is True at the first token of a document."""

  def prefill(
    self,
    x: Float[Array, "b t d"],
    state: Any,
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> tuple[Float[Array, "b t d"], Any]:
    """All outputs, going on from `state`, and the state after each row's last token."""

  def step(
    self, x: Float[Array, "b d"], state: Any, *, side: Mapping[str, Array] | None = None
  ) -> tuple[Float[Array, "b d"], Any]:
    """One token."""


def build(name: str, **kwargs: Any) -> nn.Module:
  """The mixer of that name: `build("mamba", width=64)`, `build("ssm.selective.mamba.Mamba", width=64)`.

  Args:
    name: the name of a file under FOLDERS, or the dotted path of a module or class under ROOTS.
    kwargs: its fields; `parent` as in every Linen module.

  Raises:
    ValueError: no mixer has the name, or it has no such field, or a field it needs is missing.
  """
  cls = find(name)
  check_fields(cls, kwargs, f"mixer {name!r}")
  return cls(**kwargs)


def build_spec(spec: Mapping[str, Any], *, width: int, layer: int, depth: int, **kwargs: Any) -> nn.Module:
  """The mixer a config's section describes (`name` and fields), told its width and its place in the stack.

  Raises:
    ValueError: see `build`; or the section has no name, or a width of its own.
  """
  if "name" not in spec:
    raise Mistake(f"mixer {dict(spec)} has no name; choose from {sorted(available())}")
  if spec.get("width", width) != width:
    raise Mistake(f"mixer {spec['name']!r} sets width={spec['width']} in a stack of width={width}; leave it out")
  known = fields(find(spec["name"]))
  # only fields with a default: a stack's own depth is the config's to say
  place = {key: value for key, value in (("layer", layer), ("depth", depth)) if known.get(key) is False}
  return build(**{"width": width, **place, **spec, **kwargs})


@functools.cache
def find(name: str) -> type[nn.Module]:
  """The class `build` makes for a name.

  Raises:
    ValueError: no mixer has the name, or its file does not have exactly one.
  """
  files = available()
  path = files.get(name, name)
  module, _, attribute = path.rpartition(".")
  if path not in files.values() and not (module.split(".")[0] in ROOTS and _is_module(module)):
    choices = f"choose from {sorted(files)}, or give a dotted path under {list(ROOTS)}"
    raise Mistake(f"no mixer is called {name!r}{suggest(name, files)}; {choices}")
  try:
    loaded = importlib.import_module(path if path in files.values() else module)
  except Exception as error:
    error.add_note(f"while importing the file of mixer {name!r}")
    raise
  mixers = _mixers_of(loaded)
  if path not in files.values():
    if attribute not in mixers:
      raise Mistake(f"{module} has no mixer {attribute!r}{suggest(attribute, mixers)}; it defines {sorted(mixers)}")
    return mixers[attribute]
  if len(mixers) != 1:
    raise Mistake(f"{path} defines the mixers {sorted(mixers)}; name one by its dotted path, {path}.Name")
  return next(iter(mixers.values()))


@functools.cache
def available() -> dict[str, str]:
  """Name and module of every mixer, found by looking at the files and not by importing them.

  Raises:
    ValueError: two files have one name.
  """
  found: dict[str, str] = {}
  for folder in FOLDERS:
    for file, module in _files(folder):
      # a file that cannot be read as Python is still listed: whoever asks for it gets the error
      if re.search(r"^  (STATE\b|def STATE\()", file.read_text(encoding="utf-8"), re.MULTILINE):
        if file.stem in found:
          raise Mistake(f"two mixer files are called {file.stem!r}: {found[file.stem]} and {module}; rename one")
        found[file.stem] = module
  return found


def fields(cls: type[nn.Module]) -> dict[str, bool]:
  """The fields of a module that a config may set, each with whether it must be set."""
  own = [f for f in dataclasses.fields(cls) if f.init and f.name not in ("parent", "name")]
  missing = dataclasses.MISSING
  return {f.name: f.default is missing and f.default_factory is missing for f in own}


def check_fields(cls: type[nn.Module], given: Mapping[str, Any], what: str) -> None:
  """Compares the arguments given for a module with its fields.

  Raises:
    ValueError: one is unknown or of the wrong type, or one that is needed is missing; it names `what`, the field and
      the choices.
  """
  known = fields(cls)
  for key in given:
    if key not in known and key != "parent":
      raise Mistake(f"{what} has no field {key!r}{suggest(key, known)}; its fields are {list(known)}")
  missing = [key for key, needed in known.items() if needed and key not in given]
  if missing:
    raise Mistake(f"{what} needs {missing}; its fields are {list(known)}")
  for field in dataclasses.fields(cls):
    if field.name in given and not _fits(given[field.name], field.type):
      kind = getattr(field.type, "__name__", field.type)
      raise Mistake(f"{what}: {field.name}={given[field.name]!r} must be of type {kind}")


def _fits(value: Any, annotation: Any) -> bool:
  """Whether a value is of the type a field names, where that is one of bool, int, float, str, or a choice of them."""
  kinds = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
  plain = {bool: bool, int: numbers.Integral, float: numbers.Real, str: str, type(None): type(None)}
  if any(kind not in plain for kind in kinds):
    return True
  # Python counts true and false among the numbers
  return isinstance(value, tuple(plain[kind] for kind in kinds)) and (bool in kinds or not isinstance(value, bool))


def frozen(value: Any) -> Any:
  """A config's dicts and lists as FrozenDicts and tuples, so that modules which hold them can be hashed."""
  if isinstance(value, Mapping):
    return FrozenDict({key: frozen(item) for key, item in value.items()})
  return tuple(frozen(item) for item in value) if isinstance(value, list) else value


def suggest(word: str, choices: Iterable[str]) -> str:
  """'; did you mean …?' where a choice is close to the word, else ''."""
  close = difflib.get_close_matches(word, list(choices), n=1)
  return f"; did you mean {close[0]!r}?" if close else ""


def _files(folder: str) -> list[tuple[Path, str]]:
  """The Python files below a package, each with its dotted path."""
  spec = importlib.util.find_spec(folder)
  roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
  files = [(file, root) for root in roots for file in sorted(root.rglob("*.py")) if not file.stem.startswith("_")]
  return [(file, ".".join((folder, *file.relative_to(root).with_suffix("").parts))) for file, root in files]


def _is_module(path: str) -> bool:
  """Whether a dotted path is a module, found without importing it; only the packages above it are."""
  try:
    return importlib.util.find_spec(path) is not None
  except ModuleNotFoundError as error:
    if error.name is not None and (path == error.name or path.startswith(error.name + ".")):
      return False
    raise


def _mixers_of(module: Any) -> dict[str, type[nn.Module]]:
  classes = inspect.getmembers(module, inspect.isclass)
  own = {name: cls for name, cls in classes if cls.__module__ == module.__name__}
  return {name: cls for name, cls in own.items() if issubclass(cls, nn.Module) and hasattr(cls, "STATE")}
