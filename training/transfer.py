"""Starts a run from the weights of another one, for fine-tuning.

Parameters are matched by their paths and shapes; what has no match starts as it would without, and is listed.
"""

import contextlib
import re
from pathlib import Path
from typing import Any

import jax

from mistake import Mistake
from training import leaves
from training import state as state_lib
from training import workdir as workdir_lib
from training.checkpoint import Checkpoints

# an average of the parameters, which evaluation used, in the optimizer's state of the other run
AVERAGE = re.compile(r"^opt/(?:.*/)?params/")
LISTED = 8


def start_from(state: state_lib.TrainState, folder: str, only: str = "") -> state_lib.TrainState:
  """Returns a fresh state with the weights of another run, and their averages, in place of its own.

  Args:
    folder: a workdir, its checkpoints folder, or one step in that; empty leaves the state as it is.
    only: a regular expression; parameters whose path it is not found in stay fresh.
  Raises:
    Mistake: there is no checkpoint there, the expression is none, or nothing matches.
  """
  if not folder:
    return state
  try:
    chosen = re.compile(only)
  except re.error as error:
    raise Mistake(f"init_only={only!r} is not a regular expression: {error}") from None
  directory, step = find(Path(folder).expanduser())
  params = leaves.by_path(state.params)
  with contextlib.closing(Checkpoints(directory, read_only=True)) as checkpoints:
    step, layout = checkpoints.layout(step)
    sources = _sources(layout)
    known = {path: x for path, x in params.items() if chosen.search(path) and path in sources}
    shape = {path: tuple(layout[sources[path]]["shape"]) for path in known}
    taken = {path: x for path, x in known.items() if shape[path] == x.shape}
    others = {
      path: f"{path} is {shape[path]} there and {x.shape} here" for path, x in known.items() if path not in taken
    }
    if not taken:
      raise Mistake(
        f"init_from={folder}: nothing there fits this model"
        + (f" and init_only={only!r}" if only else "")
        + (
          f": {_some(list(others.values()))}"
          if others
          else f"; it has {_some(sorted(sources))}, this model {_some(sorted(params))}"
        )
      )
    as_stored = lambda path, x: jax.ShapeDtypeStruct(x.shape, layout[sources[path]]["dtype"], sharding=x.sharding)
    arrays = checkpoints.arrays(step, {sources[path]: as_stored(path, x) for path, x in taken.items()})
  report(directory / str(step), params, taken, sources, others)
  new = [arrays[sources[path]].astype(x.dtype) if path in taken else x for path, x in params.items()]
  replaced = jax.tree.unflatten(jax.tree.structure(state.params), new)
  return state._replace(params=replaced, opt=state_lib.with_average(state.opt, replaced))


def find(folder: Path) -> tuple[Path, int | None]:
  """Returns the checkpoints folder of a path, and the step if the path is that of a step."""
  if (folder / workdir_lib.CONFIG).exists() or (folder / "checkpoints").is_dir():
    return folder / "checkpoints", None
  if folder.name.isascii() and folder.name.isdecimal() and folder.is_dir():
    return folder.parent, int(folder.name)
  if folder.is_dir():
    return folder, None
  raise Mistake(f"init_from={folder} does not exist; give a run's workdir, or a checkpoint in it")


def _sources(layout: dict[str, Any]) -> dict[str, str]:
  """Maps the path of each parameter to its path in the checkpoint, that of its average where there is one."""
  plain = {path.removeprefix("params/"): path for path in layout if path.startswith("params/")}
  averaged = {AVERAGE.sub("", path): path for path in layout if AVERAGE.search(path)}
  return plain | {path: source for path, source in averaged.items() if path in plain}


def report(
  source: Path, params: dict[str, Any], taken: dict[str, Any], sources: dict[str, str], others: dict[str, str]
) -> None:
  """Prints which parameters were taken from the other run, and which were not; `others` have other shapes there."""
  if jax.process_index() > 0:
    return
  print(f"init_from {source}: {len(taken)} of {len(params)} parameters taken", flush=True)
  fresh = [path for path in params if path not in taken and path not in others]
  unused = [path for path in sources if path not in taken and path not in others]
  for text, paths in (
    ("these start fresh, as the shapes differ", list(others.values())),
    ("these start fresh", fresh),
    ("these of the other run are not used", unused),
  ):
    if paths:
      print(f"  {text}: {_some(paths)}", flush=True)


def _some(paths: list[str]) -> str:
  more = f" and {len(paths) - LISTED} more" if len(paths) > LISTED else ""
  return ", ".join(paths[:LISTED]) + more
