"""The model section of a config: filled up with the defaults of the classes it names, and read in its older form."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from hybrids import mixer as mixer_lib
from hybrids.branch import Branch
from hybrids.embed import EMBEDDINGS
from hybrids.head import HEADS
from hybrids.model import Model
from layers.norms import NORMS
from mistake import Mistake, hint

# fields that a stack tells its branches, and a branch its mixer
FROM_STACK = ("width", "layer", "depth")
# the key of an older, flat section -> where it is now
MOVED = {
  "position": "embed.position",
  "embed_std": "embed.std",
  "depth": "body.depth",
  "pattern": "body.pattern",
  "mixers": "body.letters",
  "remat": "body.remat",
  "unroll": "body.unroll",
  "norm": "body.branch.norm.name",
  "norm_position": "body.branch.norm_position",
  "dropout": "body.branch.dropout",
  "tie": "head.tie",
  "pool": "head.pool",
}


def complete(section: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a model section with every field of every class that it names, as plain dicts and tuples.

  Only names decide what is filled in: values are checked when the model is built. Fields that are no section's, such
  as a misspelt one, stay where they are.

  Raises:
    ValueError: a name is unknown.
  """
  full = _filled(Model, section, Model.FROM_TASK)
  for what, classes in (("embed", EMBEDDINGS), ("head", HEADS)):
    part = dict(_section(what, full[what]))
    if "name" in part:
      cls = _named(what, part["name"], classes)
      part = {"name": part["name"], **_filled(cls, part, cls.FROM_TASK)}
    full[what] = part | ({"norm": _norm(part["norm"])} if "norm" in part else {})
  full["body"] = _mixer(full.get("body", {}))
  return _plain(full)


def upgrade(section: Mapping[str, Any]) -> dict[str, Any]:
  """Turns a model section of a run from before sections were nested into one of today; a newer one as it is.

  Raises:
    ValueError: it asks for `learn_state`, which is no more.
  """
  if "body" in section or not set(section) & set(MOVED):
    return dict(section)
  if section.get("learn_state"):
    raise Mistake(
      "model.learn_state=true: first states that are learned are no longer supported; go on with this run at commit "
      "2e67293, or train anew without it"
    )
  new: dict[str, Any] = {"body": {"name": "stack"}}
  for key, value in section.items():
    *parts, leaf = MOVED.get(key, key).split(".")
    here = new
    for part in parts:
      here = here.setdefault(part, {})
    if key != "learn_state":
      here[leaf] = value
  new.setdefault("head", {})["name"] = "classifier" if "pool" in section else "lm"
  if section.get("pool") == "cls":
    new.setdefault("embed", {})["class_token"] = "end"
  return new


def _section(what: str, value: Any) -> Mapping[str, Any]:
  if not isinstance(value, Mapping):
    raise Mistake(f"model: {what} is {value!r}; it must be a section of keys and values, such as {{'name': …}}")
  return value


def _named(what: str, name: Any, classes: Mapping[str, Any]) -> Any:
  if name not in classes:
    raise Mistake(f"no {what} {name!r}{hint(str(name), classes)}; choose from {sorted(classes)}")
  return classes[name]


def _filled(cls: type[nn.Module], section: Mapping[str, Any], excluded: tuple[str, ...]) -> dict[str, Any]:
  """Returns the fields of a class with their defaults, and the section's in their places."""
  own = [
    field for field in dataclasses.fields(cls) if field.name in mixer_lib.fields(cls) and field.name not in excluded
  ]
  defaults = {field.name: field.default for field in own if field.default is not dataclasses.MISSING}
  full = {**defaults, **section}
  # JSON has no infinity: where that is the default, a stored null is it
  full |= {name: value for name, value in defaults.items() if value == math.inf and full[name] is None}
  # where a float is meant, a whole number in its place would keep the command line from setting another
  whole = [f.name for f in own if f.type is float and isinstance(full.get(f.name), int)]
  return full | {name: float(full[name]) for name in whole if not isinstance(full[name], bool)}


def _mixer(section: Any) -> dict[str, Any]:
  """Returns the section of a mixer, and of mixers within it."""
  if "name" not in _section("body, or a mixer,", section):
    return dict(section)
  cls = mixer_lib.find(section["name"])
  # a body has a depth of its own; a mixer gets that of its stack
  excluded = tuple(name for name in FROM_STACK if name != "depth" or mixer_lib.fields(cls).get("depth") is False)
  full = {"name": section["name"], **_filled(cls, {k: v for k, v in section.items() if k != "name"}, excluded)}
  known = mixer_lib.fields(cls)
  if "letters" in known:
    full["letters"] = {letter: _letter(value) for letter, value in _section("letters", full.get("letters", {})).items()}
  if "branch" in known:
    branch = _filled(Branch, _section("branch", full["branch"]), (*FROM_STACK, "mixer"))
    full["branch"] = branch | {"norm": _norm(branch["norm"])}
  for name in ("stages", "stack"):
    if name in known:
      full[name] = _stacks(full[name])
  if isinstance(full.get("branches"), (list, tuple)):
    full["branches"] = tuple(map(_letter, full["branches"]))
  if "mixer" in known and isinstance(full.get("mixer"), Mapping):
    full["mixer"] = _mixer(full["mixer"])
  return full


def _stacks(value: Any) -> Any:
  """Returns the fields of a stack, or of several; what is neither stays as it is."""
  if not isinstance(value, Mapping):
    return tuple(map(_stacks, value)) if isinstance(value, (list, tuple)) else value
  full = _mixer({"name": "stack", "last_norm": False, **value})
  return {key: item for key, item in full.items() if key not in ("name", "last_norm") or key in value}


def _letter(section: Any) -> dict[str, Any]:
  """Returns a mixer, or some fields of a branch; the others are those of the stack's `branch`."""
  if "name" in _section("letter", section):
    return _mixer(section)
  return {key: _mixer(value) if key == "mixer" else value for key, value in section.items()}


def _norm(section: Any) -> dict[str, Any]:
  if _section("norm", section).get("name") not in NORMS:
    return dict(section)
  return {"name": section["name"], **_filled(NORMS[section["name"]], section, ("axis",))}


def _plain(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {key: _plain(item) for key, item in value.items()}
  return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value
