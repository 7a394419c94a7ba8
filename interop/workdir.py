"""A loaded model as a run that evaluates, generates and trains on; and what a run has learned as a released folder."""

import contextlib
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from hybrids.model import Model
from inference import tokenizer
from interop import hf, own, plan, tensors
from mistake import Mistake
from training import settings, workdir
from training.run import Run
from training.session import Folder, Progress
from training.state import with_average

# the released config.json, kept beside the run's own config for `export`
RELEASED = "released.json"
# tokens of a row of noise, where there is no task
LENGTH = 256
BYTES = 256


def adopt(folder: str | Path, config: ConfigDict | str | None, out: str | Path, *, dtype: str = "float32") -> Run:
  """Makes a run of a released model: `main.py --workdir OUT` then evaluates, generates or trains on.

  The folder's tokenizer, if it has one, is copied into the workdir, where generation and chat find it.

  Args:
    folder: what `interop.hf.load` reads.
    config: the data, optimizer and all else of the run, but for its model: a config, or its file and argument. None
      takes noise of the model's sizes for data, which is enough to generate and chat.
    out: the workdir, a new or an empty folder. It appears once it is complete.

  Raises:
    Mistake: the folder cannot be read, the workdir is taken or cannot be written, the tokenizer is not the model's, the
      task has another vocabulary than the model, or it reads text as bytes and the model does not.
  """
  target = Path(out).expanduser()
  if (target / workdir.CONFIG).exists():
    raise Mistake(f"{target} holds a run already; give another --workdir")
  given = None if config is None else settings.load(config)
  model, variables, released = hf.load(folder, dtype)
  tokens = _tokenizer(Path(folder).expanduser(), model)
  settings_of_run = _idle(model) if given is None else given
  with settings_of_run.unlocked():
    settings_of_run.model = ConfigDict(section(model))
    if settings_of_run.data.get("vocab") == 0:
      # that of the tokenizer may be smaller
      settings_of_run.data.vocab = model.vocab
  # a folder without the loaded weights must not look like a run: it would start from fresh ones
  with tensors.new_folder(target) as partial:
    run = Run.from_config(settings_of_run, partial)
    tokens = _same_tokenizer(run.task, model, folder, tokens)
    _check_tokens(run.task, model, folder, tokens, ours=released.get("model_type") == own.MODEL_TYPE)
    _replace(run, variables)
    with run.on_mesh(), contextlib.closing(Folder(partial, run.config)) as kept:
      kept.lock()
      kept.write(run.task.describe(), {}, 0)
      batches = run.task.train(jax.process_index(), jax.process_count())
      assert kept.checkpoints is not None, "the folder is locked"
      extra = dataclasses.asdict(Progress())
      kept.checkpoints.save(0, run.state, data_state=batches.get_state(), extra=extra)
      kept.finish(0)
    workdir.write_json(partial / RELEASED, released, exact=True)
    for path in _files(tokens):
      shutil.copyfile(path, partial / path.name)
  run.workdir = target
  return run


def export(folder: str | Path, out: str | Path, *, step: int | None = None, form: str = "safetensors") -> None:
  """Writes the model of a run: as its family's, if it was adopted from a released folder, else under our own names.

  Args:
    step: of the checkpoint; the newest by default.
    form: see `interop.hf.save`.

  Raises:
    Mistake: the workdir holds no run, or `out` is not empty.
  """
  path = Path(folder).expanduser() / RELEASED
  released = tensors.read_json(path) if path.exists() else None
  run = Run.open(folder, step=step, devices=jax.devices()[:1])
  found = tokenizer.file(Path(folder).expanduser())
  if found is None and tokenizer.has_file(run.task):
    found = tokenizer.file(Path(run.task.tokenizer))
  hf.save(out, run.model, jax.tree.map(np.asarray, run.variables), released, _files(found), form)


def section(model: Model) -> dict[str, Any]:
  """Returns the model section of a config that makes this model."""
  return {name: value for name, value in own.section(model).items() if value is not None}


def _idle(model: Model) -> ConfigDict:
  """Returns the config of a run that has noise for data, in rows that the model has room for, and makes no updates."""
  if model.vocab is None and model.classes is None:
    raise Mistake("the model reads features and has no classes; give its task with --config FILE.py")
  config = settings.load("configs/base.py")
  inputs, size = ("features", model.features) if model.vocab is None else ("tokens", model.vocab)
  length = min(model.longest or LENGTH, LENGTH)
  with config.unlocked():
    config.steps = 0
    config.data = ConfigDict(
      dict(name="noise", batch=8, length=length, eval_rows=8, inputs=inputs, size=size, labels=model.classes or 0)
    )
  return config


def _tokenizer(folder: Path, model: Model) -> Path | None:
  """Returns the file of the folder's tokenizer, once it is known to be the model's if it can be read here."""
  path = tokenizer.file(folder)
  if path is not None:
    # whoever generates is told which package to install
    with contextlib.suppress(tokenizer.NotInstalled):
      tokenizer.find(folder, None, model.vocab)
  return path


def _files(tokens: Path | None) -> list[Path]:
  """Returns a tokenizer's file, and the settings beside it."""
  return [] if tokens is None else [path for path in (tokens, tokens.with_name(tokenizer.SETTINGS)) if path.is_file()]


def _same_tokenizer(task: Any, model: Model, folder: str | Path, path: Path | None) -> Path | None:
  """Returns the tokenizer's file of the run: the released one, or else that of the task.

  Raises:
    Mistake: both are there and differ, or the task's has other sizes than the model.
  """
  own = tokenizer.file(Path(task.tokenizer)) if tokenizer.has_file(task) else None
  if own is None:
    return path
  _tokenizer(Path(task.tokenizer), model)
  if path is not None and path.read_bytes() != own.read_bytes():
    raise Mistake(
      f"the text of {task.tokenizer} is in the tokens of another tokenizer than {path}; make it again with ./dev "
      f"tokenize --tokenizer {folder}"
    )
  return own if path is None else path


def _check_tokens(task: Any, model: Model, folder: str | Path, tokens: Path | None, *, ours: bool) -> None:
  """Raises a Mistake where the task's tokens are not those of the model.

  Args:
    tokens: the file of the model's tokenizer.
    ours: the model was trained here, where a vocabulary may be larger than the bytes that it reads.
  """
  name = type(task).__name__
  fits = "a task of the model's own tokens"
  fits = f"{fits}, e.g. --config configs/copying.py:vocab={model.vocab}" if model.vocab else fits
  if tokenizer.has_text(task) and (tokens or (model.vocab != BYTES and not ours)):
    has = f"vocab={model.vocab}" + (f" and {tokens.name}" if tokens else "")
    raise Mistake(
      f"the task {name} reads text as bytes, but the tokens of the model in {folder} are no bytes: it has {has}; make "
      f"its tokens with ./dev tokenize for --config configs/tokens.py, give {fits}, or leave --config out to generate "
      "and chat"
    )
  for size in own.SIZES:
    if getattr(task, size) != getattr(model, size):
      raise Mistake(
        f"the task {name} has {size}={getattr(task, size)}, but the model in {folder} has {getattr(model, size)}; "
        f"give {fits}"
      )


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
