"""Lists the names of a kind and describes the settings of each: `main.py --list KIND` and `--describe NAME`."""

import ast
import dataclasses
import inspect
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn

from data import task as task_lib
from hybrids import mixer as mixer_lib
from hybrids import recipes
from hybrids.embed import EMBEDDINGS
from hybrids.head import HEADS
from inference import evaluators
from layers import norms
from mistake import Mistake, hint
from training import config_file, optimizer, schedule, settings

# width of a list's lines where there is no terminal
COLUMNS = 100


def kinds() -> dict[str, dict[str, Callable[[], Any]]]:
  """Maps each kind to its names, and each name to a function that returns its class, function or file."""
  return {
    "mixers": {name: partial(mixer_lib.find, name) for name in sorted(mixer_lib.available())},
    "tasks": {name: partial(task_lib.find, name) for name in sorted(task_lib.available())},
    "configs": {f"configs/{path.name}": partial(_itself, path) for path in config_file.all_in(config_file.FOLDER)},
    "optimizers": dict.fromkeys(optimizer.OPTIMIZERS, partial(_itself, optimizer.build)),
    "schedules": dict.fromkeys(schedule.SCHEDULES, partial(_itself, schedule.learning_rate)),
    "embeddings": {name: partial(_itself, cls) for name, cls in EMBEDDINGS.items()},
    "heads": {name: partial(_itself, cls) for name, cls in HEADS.items()},
    "norms": {name: partial(_itself, cls) for name, cls in norms.NORMS.items()},
    "evaluators": {name: partial(evaluators.find, name) for name in evaluators.EVALUATORS},
    "models": {name: partial(recipes.get_recipe, name) for name in [*recipes.names(), *recipes.names(toys=True)]},
  }


def _itself(thing: Any) -> Any:
  return thing


def names(kind: str) -> str:
  """Returns all names of a kind, a line each, with the first line of their docstrings."""
  entries = kinds()[kind]
  if kind == "models":
    return _models(entries)
  width = max(map(len, entries))
  # all of these are described by one function, so that their lines stand elsewhere
  shared = {"optimizers": optimizer.ABOUT, "schedules": schedule.SCHEDULES}.get(kind, {})
  lines = {name: shared.get(name) or _line(kind, name, get) for name, get in entries.items()}
  return "\n".join(f"{name:{width}}  {line}" for name, line in lines.items())


def _line(kind: str, name: str, get: Callable[[], Any]) -> str:
  """Returns the first line about an entry, or why its file cannot be imported, so that the others are listed still."""
  try:
    return _doc(get()).split("\n", 1)[0]
  except Exception as error:
    if kind != "mixers":
      raise
    file = mixer_lib.available()[name].replace(".", "/") + ".py"
    return f"{file} cannot be used: {type(error).__name__}: {' '.join(str(error).split())}"


def _models(entries: Mapping[str, Callable[[], Any]]) -> str:
  """Returns a line a model: its parameters and those that a token passes, as published, and its hyper-parameters."""
  rows = [("model", "published parameters", "", "arguments of its recipe; --describe MODEL has its sections")]
  for name, get in entries.items():
    recipe = get()
    about = "~" if recipe.within else ""
    total = f"{about}{recipe.parameters:,}" if recipe.parameters else ""
    active = f"{recipe.active:,} active" if recipe.active else ""
    rows.append((name, total, active, ", ".join(f"{key}={value}" for key, value in recipe.fields.items())))
  widths = [max(len(row[i]) for row in rows) for i in range(3)]
  lines = [
    f"{name:{widths[0]}}  {total:>{widths[1]}}  {active:{widths[2]}}  {fields}" for name, total, active, fields in rows
  ]
  # --describe has the rest
  columns = max(shutil.get_terminal_size((COLUMNS, 0)).columns, sum(widths) + 16)
  return "\n".join(line if len(line) <= columns else f"{line[: columns - 2].rstrip(', ')} …" for line in lines)


def page(name: str) -> str:
  """Describes the entry of a name: its docstring, and its settings with their defaults.

  Raises:
    Mistake: nothing has the name.
  """
  everything = kinds()
  pages = [
    f"{name}, one of the {kind}\n\n{_page(entries[key]())}"
    for kind, entries in everything.items()
    for key in entries
    if name in (key, Path(key).stem)
  ]
  if not pages:
    op = Path(__file__).parents[1] / "kernels" / name / "__init__.py"
    if name.isidentifier() and op.exists():
      raise Mistake(f"--describe={name}: an op, whose signature and docstring are in kernels/{name}/__init__.py")
    choices = [key for entries in everything.values() for key in entries]
    meant = recipes.siblings(name) or hint(name, choices)
    raise Mistake(f"--describe={name}: nothing is called that{meant}; --list {'|'.join(everything)}")
  return "\n\n".join(pages)


def _page(thing: Any) -> str:
  if isinstance(thing, recipes.Recipe):
    rows = [(key, "", repr(value)) for key, value in config_file.flat(thing.model)]
  elif isinstance(thing, Path):
    config = settings.load(str(thing))
    rows = [(key, "", repr(value)) for key, value in config_file.flat(config.to_dict())]
  else:
    rows = list(_fields(thing))
  widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
  table = "\n".join(f"  {key:{widths[0]}}  {kind:{widths[1]}}  {default}".rstrip() for key, kind, default in rows)
  return f"{_doc(thing)}\n\nsettings and their defaults:\n{table}"


def _fields(thing: Any) -> Iterator[tuple[str, str, str]]:
  """Returns (name, type, default) of each argument of a class or function."""
  if dataclasses.is_dataclass(thing):
    hidden = {"parent", "name"} if isinstance(thing, type) and issubclass(thing, nn.Module) else set()
    for field in dataclasses.fields(thing):
      if field.init and field.name not in hidden:
        factory: Any = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        yield field.name, _type(field.type), "(needed)" if default is dataclasses.MISSING else repr(default)
  else:
    for parameter in inspect.signature(thing).parameters.values():
      if parameter.kind == parameter.KEYWORD_ONLY:
        needed = parameter.default is parameter.empty
        yield parameter.name, _type(parameter.annotation), "(needed)" if needed else repr(parameter.default)


def _type(annotation: Any) -> str:
  return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _doc(thing: Any) -> str:
  if isinstance(thing, recipes.Recipe):
    return inspect.getdoc(inspect.getmodule(thing.function)) or ""
  if isinstance(thing, Path):
    return ast.get_docstring(ast.parse(thing.read_text())) or ""
  if isinstance(thing, type) and thing.__module__.startswith("data."):
    # what the task is stands in its module, what its fields mean in its class
    return "\n\n".join(filter(None, (inspect.getdoc(inspect.getmodule(thing)), inspect.cleandoc(thing.__doc__ or ""))))
  if isinstance(thing, type):
    # a class that only inherits its docstring is described by its module
    return inspect.cleandoc(thing.__dict__.get("__doc__") or "") or inspect.getdoc(inspect.getmodule(thing)) or ""
  return inspect.getdoc(thing) or ""
