"""Fields of modules, and whether what a config gives for them is of their types."""

import dataclasses
import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from mistake import Mistake, hint

# in float32, beyond which numbers are infinite
LARGEST = (2 - 2**-23) * 2.0**127
# a field's type -> that of the values it takes
PLAIN = {bool: bool, int: numbers.Integral, float: numbers.Real, str: str, type(None): type(None)}


def fields(cls: type[nn.Module]) -> dict[str, bool]:
  """Returns the fields of a module that a config may set, each with whether it must be set."""
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
      raise Mistake(f"{what} has no field {key!r}{hint(key, known)}; its fields are {list(known)}")
  missing = [key for key, needed in known.items() if needed and key not in given]
  if missing:
    raise Mistake(f"{what} needs {missing}; its fields are {list(known)}")
  for field in dataclasses.fields(cls):
    if field.name in given and not _fits(given[field.name], field.type):
      kind = _kind(field.type)
      advice = "; write None" if given[field.name] == "none" and "None" in kind else ""
      raise Mistake(f"{what}: {field.name}={given[field.name]!r} must be of type {kind}{advice}")
    if field.name in given and not _countable(given[field.name], field):
      raise Mistake(
        f"{what}: {field.name}={given[field.name]!r} must be a finite number in float32, and below 2^31 if it is whole"
      )


def _fits(value: Any, annotation: Any) -> bool:
  """Tells if a value is of the type a field names: of PLAIN, a section, a sequence of these, or a choice of them."""
  if isinstance(annotation, types.UnionType):
    return any(_fits(value, kind) for kind in typing.get_args(annotation))
  origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
  if origin is Mapping:
    return isinstance(value, Mapping) and all(all(map(_fits, item, inner)) for item in value.items())
  if origin is Sequence:
    return isinstance(value, (list, tuple)) and all(_fits(item, inner[0]) for item in value)
  if annotation not in PLAIN:
    return True
  # Python counts true and false among the numbers
  return isinstance(value, PLAIN[annotation]) and (annotation is bool or not isinstance(value, bool))


def _kind(annotation: Any) -> str:
  """Returns what a message calls a type: what a config's reader calls it, not Python's name."""
  if isinstance(annotation, types.UnionType):
    return " | ".join(map(_kind, typing.get_args(annotation)))
  origin = typing.get_origin(annotation)
  if origin is Mapping:
    inner = typing.get_origin(typing.get_args(annotation)[1]) is Mapping
    return "section of sections, written {'KEY': {'KEY': VALUE}}" if inner else "section, written {'KEY': VALUE}"
  if origin is Sequence:
    return f"sequence of {_kind(typing.get_args(annotation)[0])}"
  return "None" if annotation is type(None) else str(getattr(annotation, "__name__", annotation))


def _countable(value: Any, field: dataclasses.Field) -> bool:
  """Tells if a value is no number, or one that a field can have: infinity only where that is the default."""
  if not isinstance(value, numbers.Real) or isinstance(value, bool):
    return True
  if isinstance(value, numbers.Integral):
    return abs(int(value)) < 2**31
  return abs(float(value)) <= LARGEST or value == field.default
