"""Defines what a task is, and `build_task`, the one way to make one.

A task knows no model. It names its head and its loss, gives the sizes a model needs, and yields batches:

  inputs   int32 `b t` (tokens) or float32 `b t f` (features)
  targets  int32 `b t` (one a token) or `b` (one a row)
  weights  float32, shaped like targets; 0 where nothing is to be predicted
  reset    bool `b t`, only where documents are packed: True at the first token of a document (or of a stream)
  lengths  int32 `b`, only where rows are ragged

All training batches of a task have the same keys and shapes.
"""

import dataclasses
import importlib
import inspect
import math
import pathlib
import typing
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from data.pipeline import Batch
from mistake import Mistake, hint, near

FOLDER = pathlib.Path(__file__).parent


class Task(Protocol):
  """A data set or generator as the training loop sees it. Implementors are frozen dataclasses: config.data."""

  head: str  # a name in hybrids/head/: 'lm', 'classifier', 'regression' …
  loss: str  # a name in training/losses.py
  metrics: tuple[str, ...]  # names of what evaluation reports
  vocab: int | None  # tokens of inputs and targets, or of the targets alone where inputs are features; or None
  features: int | None  # width of an input vector, or None where inputs are tokens
  classes: int | None  # of a classifier
  stateful: bool  # row i of a batch continues row i of the batch before it

  @property
  def batch(self) -> int: ...  # rows of the global batch
  @property
  def length(self) -> int: ...  # `t` of the training batches

  def train(self, process_index: int = 0, process_count: int = 1) -> Iterator[Batch]:
    """Returns an endless iterator; `get_state()` and `set_state()` resume it exactly."""
    ...

  def eval_sets(self, process_index: int = 0, process_count: int = 1) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns for each name a function that starts a pass, always the same; its `len`, if any, counts the batches."""
    ...

  def describe(self) -> dict[str, Any]:
    """Returns facts about the data (bytes, sha256 …) for JSON; reads it, and missing or broken data is a ValueError."""
    ...


def build_task(name: str, **kwargs: Any) -> Task:
  """Makes a task: `build_task("mqar", pairs=8)` is MQAR(pairs=8); a name is a file in data/ or a class's dotted path.

  Raises:
    ValueError: no such task, no such field, or a value that does not fit.
  """
  cls = find(name)
  fields = [f.name for f in dataclasses.fields(cls)]
  for key in kwargs:
    if key not in fields:
      raise Mistake(f"task {name!r} has no field {key!r}{hint(key, fields)}; its fields are {fields}")
  for key, annotation in typing.get_type_hints(cls).items():
    if key in kwargs and not fits(kwargs[key], annotation):
      raise Mistake(f"data.{key}={kwargs[key]!r} does not fit task {name!r}: it must be {form(annotation)}")
  return cls(**kwargs)


def fits(value: Any, annotation: Any) -> bool:
  """Returns whether a value is of an annotated type: a finite number, text, a truth value, a tuple or list of these."""
  parts = typing.get_args(annotation)
  if parts:
    whole = isinstance(value, (tuple, list)) and (parts[-1] is ... or len(value) == len(parts))
    return whole and all(fits(x, parts[0 if parts[-1] is ... else i]) for i, x in enumerate(value))
  if annotation is float:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
  return isinstance(value, annotation) and (annotation is bool or not isinstance(value, bool))


def form(annotation: Any) -> str:
  """Returns the annotated type in words, such as '(…, …), each of them (a whole number, text)'."""
  names = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}
  parts = typing.get_args(annotation)
  if not parts:
    return names[annotation]
  if parts[-1] is ...:
    return f"(…, …), each of them {form(parts[0])}"
  return f"({', '.join(form(part) for part in parts)})"


def find(name: str) -> Any:
  """Returns the task class called `name`."""
  everything = available()
  if not isinstance(name, str):
    raise Mistake(f"data.name={name!r}; it is the name of a task: {sorted(everything)}")
  if name in everything:
    name = everything[name]
  if name not in everything.values():
    raise Mistake(f"no task is called {name!r}{near(name, everything, 'tasks')}")
  module, _, cls = name.rpartition(".")
  return getattr(importlib.import_module(module), cls)


def available() -> dict[str, str]:
  """Returns by file name the dotted path of every task in this folder."""
  paths = {}
  for path in sorted(FOLDER.glob("*.py")):
    module = importlib.import_module(f"data.{path.stem}")
    for name, cls in vars(module).items():
      own = inspect.isclass(cls) and cls.__module__ == module.__name__
      if own and dataclasses.is_dataclass(cls) and hasattr(cls, "head") and not inspect.isabstract(cls):
        paths[path.stem] = f"{module.__name__}.{name}"
  return paths
