"""A loaded model as a run that evaluates, generates and trains on; and what a run has learned as a released folder."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from hybrids.model import Model
from interop import hf, own, plan
from mistake import Mistake
from training import settings, workdir
from training.run import Run
from training.session import Folder, Progress
from training.state import with_average

# the released config.json, kept beside the run's own config for `export`
RELEASED = "released.json"


def adopt(folder: str | Path, config: ConfigDict | str, out: str | Path, *, dtype: str = "float32") -> Run:
  """Makes a run of a released model: `main.py --workdir OUT` then evaluates, generates or trains on.

  Args:
    folder: what `interop.hf.load` reads.
    config: the data, optimizer and all else of the run, but for its model: a config, or its file and argument.
    out: the workdir, which must not hold a run.

  Raises:
    Mistake: the folder cannot be read, the workdir is taken, or the task has another vocabulary than the model.
  """
  out = Path(out).expanduser()
  if (out / workdir.CONFIG).exists():
    raise Mistake(f"{out} holds a run already; give another --workdir")
  settings_of_run = settings.load(config)
  model, variables, released = hf.load(folder, dtype)
  with settings_of_run.unlocked():
    settings_of_run.model = ConfigDict(section(model))
  run = Run.from_config(settings_of_run, out)
  for size in own.SIZES:
    if getattr(run.task, size) != getattr(model, size):
      raise Mistake(
        f"the task {type(run.task).__name__} has {size}={getattr(run.task, size)}, but the model in {folder} has "
        f"{getattr(model, size)}; give --config a task of the model's own tokens"
      )
  _replace(run, variables)
  with run.on_mesh(), contextlib.closing(Folder(out, run.config)) as kept:
    kept.lock()
    kept.write(run.task.describe(), {}, 0)
    batches = run.task.train(jax.process_index(), jax.process_count())
    assert kept.checkpoints is not None, "the folder is locked"
    extra = dataclasses.asdict(Progress())
    kept.checkpoints.save(0, run.state, data_state=batches.get_state(), extra=extra)
    kept.finish(0)
  workdir.write_json(out / RELEASED, released)
  return run


def export(folder: str | Path, out: str | Path, *, step: int | None = None) -> None:
  """Writes the model of a run: as its family's, if it was adopted from a released folder, else under our own names.

  Args:
    step: of the checkpoint; the newest by default.

  Raises:
    Mistake: the workdir holds no run, or `out` is not empty.
  """
  path = Path(folder).expanduser() / RELEASED
  released = json.loads(path.read_text()) if path.exists() else None
  run = Run.open(folder, step=step, devices=jax.devices()[:1])
  hf.save(out, run.model, jax.tree.map(np.asarray, run.variables), released)


def section(model: Model) -> dict[str, Any]:
  """The model section of a config that makes this model."""
  return {name: value for name, value in own.section(model).items() if value is not None}


def _replace(run: Run, variables: dict[str, Any]) -> None:
  """Puts the variables in the place of the run's fresh ones, with their dtypes and shardings."""
  given = plan.leaves(variables)
  fresh = plan.leaves({"params": run.state.params, **run.state.buffers})
  shapes = lambda leaves: {name: np.shape(leaf) for name, leaf in leaves.items()}
  if wrong := dict(shapes(given).items() ^ shapes(fresh).items()):
    raise Mistake(f"the run's model is another one than the loaded: {sorted(wrong)[:8]}")
  new: dict[str, Any] = {}
  for name, leaf in fresh.items():
    plan.put(new, name, jax.device_put(given[name].astype(leaf.dtype), leaf.sharding))
  params = new.pop("params")
  run.state = run.state._replace(params=params, buffers=new, opt=with_average(run.state.opt, params))
