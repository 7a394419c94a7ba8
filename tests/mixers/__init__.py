"""One test file for each mixer, by the mixer's name; the shared suites read its tables, pytest runs its own tests.

A file `tests/mixers/NAME.py` has, with D = 8 as the width (tests/contract/case.py):

  SMALL      row -> fields of a small instance; the contract suite (tests/test_mixers.py) checks each. The first row is
             "", and others exist where fields change the kind of state, what is read, or the code that runs.
  SIDE       row -> {name: maker(batch, tokens) -> values}, for rows of SMALL and ORACLE that get side inputs.
             Optional.
  count      (d, **fields) -> the number of parameters, from the equations.
  ORACLE     row -> fields, or (fields, arguments of the oracle); it also gets the fields that it has arguments for by
             name. tests/oracles/NAME.py `run`, a transcription of the paper in NumPy, is compared with each in
             float64 (tests/test_oracles.py). Empty for what is made of other mixers.
  RESUMED    rows of ORACLE whose `prefill` is compared too, since `__call__` is another computation. Optional.
  SLOW       rows of ORACLE for the slow suite. Optional.
  REFUSED    (fields, part of the message) for each mistake that is refused when the mixer is built or set up.
  TRAINED    {"slow": {names}, "undecayed": {names}}, two sets: the parameters declared slow, and those of two axes or
             more declared without weight decay (biases, scales, mixtures). Optional.
  INITIAL    (fields, {names: expected}) for values that parameters and buffers start with: names are paths,
             without "/kernel", separated by spaces; expected is a check of tests/initial.py, a number or an array.
  STATES     (fields, {name: shape}) for leaves of `init_state(1, 100)` at published sizes. Optional.
  PATH       the dotted path, for what is built by path alone. Optional.

What only this mixer must show follows as ordinary tests, named for the fact they state.
"""

import functools
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@functools.cache
def files() -> dict[str, ModuleType]:
  """The test file of each mixer that has one."""
  names = sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))
  return {name: importlib.import_module(f"tests.mixers.{name}") for name in names}


def table(attribute: str) -> dict[str, Any]:
  """A table of all files together, by "NAME" or "NAME, row"."""
  rows = {}
  for name, module in files().items():
    for row, value in getattr(module, attribute, {}).items():
      rows[f"{name}, {row}" if row else name] = value
  return rows


def rows(attribute: str) -> set[str]:
  """The rows that files name in a tuple, by "NAME" or "NAME, row"."""
  return {
    f"{name}, {row}" if row else name for name, module in files().items() for row in getattr(module, attribute, ())
  }


def cases(attribute: str) -> Iterator[Any]:
  """A table of cases of all files as parameters of a test, whose first is the mixer's name."""
  for name, module in files().items():
    for i, case in enumerate(getattr(module, attribute, ())):
      label = case[-1] if isinstance(case[-1], str) else i
      yield pytest.param(name, *case, id=f"{name}-{label}", marks=pytest.mark.xdist_group(name))


def path(name: str) -> str:
  """What `build` is told."""
  return getattr(files()[name], "PATH", name)


def count(name: str, width: int, **fields: Any) -> int:
  """The number of parameters that a mixer should have."""
  return files()[name].count(width, **fields)


def oracles() -> dict[str, Any]:
  """The rows of ORACLE of all files: what is built, the oracle, and what it is told."""
  cases = {}
  for name, module in files().items():
    for row, given in module.ORACLE.items():
      fields, told = given if isinstance(given, tuple) else (given, {})
      run = _oracle(name)
      told = {key: fields[key] for key in inspect.signature(run).parameters if key in fields} | told
      cases[f"{name}, {row}" if row else name] = (dict(name=path(name), **fields), run, told)
  return cases


def _oracle(name: str) -> Any:
  try:
    return importlib.import_module(f"tests.oracles.{name}").run
  except ModuleNotFoundError as error:
    if error.name != f"tests.oracles.{name}":
      raise
    raise LookupError(f"write tests/oracles/{name}.py with the paper's equations, see CONTRIBUTING.md") from None
