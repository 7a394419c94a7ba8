"""A run: a config's task, model and optimizer, and their current variables.

run = Run.from_config("configs/mqar.py:mixer=s5,width=32", workdir="runs/s5")   # or a ConfigDict
run.train()                                # "done", or "stopped" by a signal; from where the folder stands
run.evaluate()                             # {"eval/test/accuracy": 0.98, …}

run = Run.open("runs/s5")                  # a trained one, with the variables of its newest checkpoint
run.model, run.variables, run.task
run.predict(batch)                         # logits
run.generate("def ")                       # text
"""

import contextlib
import functools
import inspect
import io
import operator
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np
from ml_collections import ConfigDict

from data.task import build_task
from hybrids.model import build_model, side_inputs
from inference import count, evaluators, text, tokenizer
from inference.evaluators import Evaluation
from inference.text_model import TextModel
from kernels import dispatch
from mistake import Mistake
from training import evaluate as evaluate_lib
from training import flops, losses, metrics, optimizer, peers, platform, schedule, settings, sharding, spikes, transfer
from training import state as state_lib
from training import step as step_lib
from training import workdir as workdir_lib
from training.checkpoint import Checkpoints
from training.processes import warn_of_same_rows
from training.session import Folder, Progress, Session

# batches that are looked at for something to score
TRIED = 8


class Run:
  """A run of a config: its task, model, optimizer and state, in memory or in a folder.

  Attributes:
    config: whole, checked and locked.
    workdir: the folder that `train` writes to; None trains in memory.
    task, model, tx: built from the config's data, model and optimizer sections.
    state: parameters, optimizer and all else that an update changes; fresh until it is restored or trained.
    step: updates that the state has behind it.
  """

  def __init__(self, config: ConfigDict, workdir: Path | None, devices: Sequence[jax.Device] | None):
    self.config, self.workdir = config, workdir
    if config.kernels != "auto":
      # "auto" leaves KERNEL_IMPL in force
      dispatch.force(config.kernels)
    # or the run would be trained before it is said that it cannot write
    text.check_settings(config.generate)
    data, optimizer_section = config.data.to_dict(), config.optimizer.to_dict()
    settings.check_keys("optimizer", optimizer_section, optimizer.build)
    self.task = build_task(**data)
    self.model = build_model(self.task, **config.model.to_dict())
    params = state_lib.variables_shape(self.model, self.task)["params"]
    self.tx = optimizer.build(params, steps=config.steps, **optimizer_section)
    self._devices = devices
    self._state: state_lib.TrainState | None = None

  @classmethod
  def from_config(
    cls,
    config: ConfigDict | Mapping[str, Any] | str,
    workdir: str | Path | None = None,
    *,
    devices: Sequence[jax.Device] | None = None,
  ) -> "Run":
    """Makes a run to train.

    Args:
      config: or its file and argument, as `--config` takes them.
      workdir: a new folder, or that of the same run, which `train` goes on with.
      devices: all by default.
    Raises:
      Mistake: a setting is wrong, or they do not fit together.
    """
    return cls(settings.load(config), None if workdir is None else Path(workdir), devices)

  @classmethod
  def open(
    cls,
    workdir: str | Path,
    *,
    step: int | None = None,
    config: ConfigDict | None = None,
    devices: Sequence[jax.Device] | None = None,
  ) -> "Run":
    """Opens a trained run with the variables of a checkpoint but no optimizer. The folder is not changed.

    Args:
      step: of the checkpoint; the newest intact one by default.
      config: the run's own by default; another one may differ in what does not change the parameters. Text files other
        than those that the run was trained on are evaluated whole.
      devices: all by default.
    Raises:
      Mistake: the folder holds no run, no checkpoint to use, or one of another model.
    """
    folder = Path(workdir)
    stored = workdir_lib.get_config(str(folder))
    facts = lambda data: build_task(**data).describe()
    chosen = stored if config is None else workdir_lib.evaluating(folder, stored, settings.load(config), facts)
    run = cls(chosen, folder, devices)
    workdir_lib.refuse(folder, run._changes(), workdir_lib.LOOKING)
    with contextlib.closing(Checkpoints(folder / "checkpoints", read_only=True)) as checkpoints, run.on_mesh():
      restored = checkpoints.restore(state_lib.to_look_at(run.like), step, subset=True)
    if restored is None:
      raise Mistake(f"{folder}/checkpoints holds no checkpoint to use; train first, or give another --workdir")
    run._state = restored.state
    run.step = restored.step
    return run

  @functools.cached_property
  def mesh(self) -> jax.sharding.Mesh:
    """Returns the mesh of devices that hold the run's arrays."""
    section = self.config.mesh.to_dict()
    del section["cpu_devices"]
    mesh = sharding.make_mesh(**section, devices=self._devices)
    sharding.check_batch(self.task.batch, self.task.length, mesh)
    return mesh

  @functools.cached_property
  def _blueprint(self) -> tuple[Any, state_lib.TrainState]:
    stateful = state_lib.carries(self.model, stateful=self.task.stateful)
    with self.on_mesh():
      return state_lib.blueprint(self.model, self.task, self.tx, self.mesh, stateful=stateful)

  @property
  def name(self) -> str:
    """Returns the name of the run's folder, for titles."""
    return self.workdir.resolve().name if self.workdir else "run"

  @property
  def like(self) -> state_lib.TrainState:
    """Returns the shapes and shardings of the state."""
    return self._blueprint[1]

  step: int = 0

  @property
  def state(self) -> state_lib.TrainState:
    """Returns the current state; see the class."""
    if self._state is None:
      with self.on_mesh():
        self._state = self._blueprint[0](self.config.seed)
        self._state = transfer.start_from(self._state, self.config.init_from, self.config.init_only)
    return self._state

  @state.setter
  def state(self, value: state_lib.TrainState) -> None:
    self._state = value

  @property
  def variables(self) -> dict[str, Any]:
    """Returns variables to apply the model with; parameters are the averaged ones where the optimizer keeps them."""
    return self.state.variables

  @contextlib.contextmanager
  def on_mesh(self) -> Iterator[None]:
    """Makes the mesh known to all functions that are traced and arrays that are restored inside."""
    with sharding.active(self.mesh):
      yield

  @functools.cached_property
  def costs(self) -> dict[str, Any]:
    """Returns facts about the model for the summary."""
    shapes = self.like
    return {
      "parameters": state_lib.count(shapes.params),
      "flops_per_token": flops.per_token(self.model, shapes.variables, state_lib.example(self.task, self.task.batch)),
      "state_bytes": None if self.model.STATE == "none" else count.state_bytes(self.model, self.task.length),
    }

  def evaluate(self) -> dict[str, float]:
    """Returns the task's metrics of the current variables, `{"eval/<set>/<metric>": …}`."""
    with self.on_mesh():
      found = (one.ask(self.variables, self.step) for one in self._evaluations)
      return functools.reduce(operator.or_, found)

  def predict(self, batch: Mapping[str, np.ndarray] | np.ndarray) -> np.ndarray:
    """Returns the logits of a batch: its `inputs` alone, or with `reset`, `lengths` and `dt` as a task makes them."""
    batch = batch if isinstance(batch, Mapping) else {"inputs": batch}
    with self.on_mesh():
      placed = sharding.put(
        {key: batch[key] for key in ("inputs", "reset", "lengths", "dt") if key in batch}, self.mesh
      )
      return np.asarray(self._logits(self.variables, placed))

  @property
  def text_model(self) -> TextModel:
    """Returns the model, its current variables and tokenizer, off the mesh: few sequences are not worth splitting."""
    found = tokenizer.find(self.workdir, self.task, self.model.vocab)
    return TextModel(self.model, jax.device_get(self.variables), found, **self.config.generate.to_dict())

  def generate(self, prompt: str | None = None, *, out: TextIO | io.TextIOBase | None = None, **changes: Any) -> str:
    """Returns the text that continues a prompt; needs a language model of text.

    Args:
      out: where prompt and text are written as they are drawn.
      changes: to the config's generate section; and logit_bias.
    """
    return self.text_model.generate(prompt, out=out, **changes)

  def complete(self, prompts: str | Sequence[str], **changes: Any) -> list[dict[str, Any]]:
    """Returns the completions of many prompts, batch by batch; see `inference.completions.complete`."""
    return list(self.text_model.complete(prompts, **changes))

  def train(self, *, from_step: int | None = None) -> str:
    """Trains to config.steps: "done", or "stopped" by a signal and saved. The state is then the last one.

    Args:
      from_step: of the checkpoint to go on from, where not the newest; some optimizer settings may then be others.
    Raises:
      Mistake: the folder, the data or the settings do not fit; or a checkpoint cannot be written.
      FloatingPointError: the loss or its gradient was not finite; nothing after it was saved.
    """
    batches = self.task.train(jax.process_index(), jax.process_count())
    # all mistakes must be reported before the folder is changed
    reads, chosen = self._try(batches)
    facts = self.task.describe()
    changed = self._check_folder(facts, from_step)
    wandb = metrics.find_wandb(self.config.wandb)
    if not (self.workdir and (self.workdir / workdir_lib.JOURNAL).exists()):
      # the weights of init_from may be refused
      _ = self.state
    with self.on_mesh(), contextlib.closing(Folder(self.workdir, self.config)) as folder:
      folder.lock()
      # checked again, as the last holder of the lock may have written to the folder
      changed = self._check_folder(facts, from_step)
      restored = folder.restore(self.like, from_step=from_step)
      progress = Progress()
      if restored:
        batches.set_state(restored.data_state)
        progress = Progress(**restored.extra)
        self.state, self.step = restored.state, restored.step
      if self.step > self.config.steps:
        raise Mistake(
          f"steps={self.config.steps}, but {self.workdir} has trained {self.step} already; raise steps, or give "
          "--from-step with one of its checkpoints"
        )
      jax.block_until_ready(self.state)
      notice = self._extended()
      folder.write(facts, changed, self.step)
      writer = metrics.Writer(
        self.workdir,
        first=self.step if restored else None,
        steps=self.config.steps,
        config=self.config.to_dict(),
        wandb=wandb,
      )
      session = Session(folder, batches, progress, writer, self._clock(progress))
      session.greet(restored is not None, self.costs["parameters"], self.mesh.size, chosen)
      for line in filter(None, (notice, getattr(self.task, "notice", ""))):
        writer.say(line)
      status = "failed"
      try:
        status = self._loop(session, reads)
        folder.finish(self.step)
      except BaseException as error:
        peers.end_if_lost(error)
        status = "failed"
        raise
      finally:
        writer.close()
        folder.summarize({"status": status, "steps": self.config.steps} | self.costs, progress)
    return status

  def _loop(self, session: Session, reads: str) -> str:
    """Runs the loop from the state's step to config.steps or until a signal.

    Args:
      reads: what an evaluation reads.
    """
    config, first, last = self.config, self.step, self.config.steps
    update, forget = self._update, step_lib.make_forget(like=self.like)
    rate, turn = schedule.of(config.optimizer, last), schedule.turn(config.optimizer, last)
    with platform.stop_requests() as asked_to_stop:
      for step in range(first, last + 1):
        # Evaluate the state as it is, save it with the position in the data, only then take the next batch: so a
        # resumed run sees every batch once. Whoever asks to stop may not wait for an evaluation: the resumed run does
        # that.
        stop = step < last and asked_to_stop(step)
        better = False
        if session.progress.evaluated < step and not stop:
          wanted = [one for one in self._evaluations if due(step, one.every, last)]
          better = session.evaluate(wanted, step, self.state, reads)
        session.at(step)
        if step > first and (stop or better or step == turn or due(step, config.save.every, last)):
          step_lib.check_finite(self.state.seen)
          with session.pause(self.state):
            session.save(step, self.state)
        if stop or step == last:
          return "stopped" if stop else "done"
        with session.compiling("the update", first=step == first):
          self.state = update(self.state, *self._take(session.batches))
          session.tick(step, first, self.state)
        self.step = step + 1
        if due(step + 1, config.log_every, last):
          found = step_lib.report(self.state.seen, self.task.metrics, losses.bytes_per_target(self.task, "train"))
          session.row(step + 1, found | {"train/lr": float(rate(step))} | spikes.skipped(self.state.opt))
          self.state = self.state._replace(seen=forget())
    raise AssertionError("the last step returns")

  def _take(self, batches: Iterator) -> list[dict[str, jax.Array]]:
    """Returns the batches of one update, on the devices."""
    return [sharding.put(batch, self.mesh) for batch in islice(batches, self.config.optimizer.get("accumulate", 1))]

  @functools.cached_property
  def _update(self) -> Any:
    return step_lib.make_update(self.model, self.tx, like=self.like)

  @functools.cached_property
  def _evaluations(self) -> list[Evaluation]:
    """Returns the evaluation of the task's own sets, and those of the config's evaluators."""
    return evaluators.of_run(self.model, self.task, self.mesh, self.config, self.workdir)

  @functools.cached_property
  def _logits(self) -> Any:
    apply = lambda variables, batch: self.model.apply(variables, batch["inputs"], **side_inputs(batch))
    return jax.jit(apply)

  def _clock(self, progress: Progress) -> metrics.Clock:
    inputs = state_lib.example(self.task, self.task.batch * self.config.optimizer.get("accumulate", 1))
    return metrics.Clock(progress.seconds, tokens=state_lib.tokens(inputs), flops=self.costs["flops_per_token"])

  def _try(self, batches: Any) -> tuple[str, dispatch.Chosen]:
    """Checks that the model runs on the data; returns what an evaluation reads, and how an update's ops are computed.

    Raises:
      Mistake: nothing in the training batches or in an evaluation set has any weight, or `save.best` is no metric.
    """
    start, batch = batches.get_state(), next(batches)
    warn_of_same_rows(batch, islice(batches, 3))
    with self.on_mesh():
      _ = self._evaluations  # their mistakes show before the first step
      given = self.like, sharding.put(batch, self.mesh)
      with dispatch.watch() as chosen:
        jax.eval_shape(self._update, *given)
    if not any(batch["weights"].any() for batch in (batch, *islice(batches, TRIED - 1))):
      raise Mistake(f"the first {TRIED} training batches have nothing to predict: all weights are 0; see data")
    batches.set_state(start)
    sets = self.task.eval_sets(jax.process_index(), jax.process_count())
    metric_names = [f"eval/{name}/{key}" for name in sets for key in dict.fromkeys(("loss", *self.task.metrics))]
    if self.config.save.best and self.config.save.best not in metric_names:
      raise Mistake(f"save.best={self.config.save.best!r} is no metric; there are {', '.join(metric_names)}")
    return evaluate_lib.preview(self.task, self.config.eval.batches), chosen or dispatch.recorded

  def _extended(self) -> str:
    """Returns what other `steps` than those that the folder's run was started with do to the schedule."""
    if self.workdir is None:
      return ""
    before = workdir_lib.steps_before(self.workdir, self.config)
    return schedule.extended(self.config.optimizer, before, self.config.steps, self.step)

  def _changes(self) -> dict[str, tuple[Any, Any]]:
    """Returns the settings in which this run differs from the one in its folder, as old and new values."""
    if self.workdir is None:
      return {}

    def same_optimizer(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
      known = inspect.signature(optimizer.build).parameters
      full = lambda section: {name: section.get(name, known[name].default) for name in {*old, *new} & set(known)}
      return full(old) == full(new) and {*old, *new} <= set(known)

    same = {
      "data": lambda old, new: build_task(**old) == build_task(**new),
      "optimizer": same_optimizer,
    }
    return workdir_lib.changes(self.workdir, self.config, same)

  def _check_folder(self, facts: Mapping[str, Any], from_step: int | None) -> dict[str, tuple[Any, Any]]:
    """Returns the settings that change with `from_step`.

    Raises:
      Mistake: the folder holds another run, or was trained on other data.
    """
    if self.workdir is None:
      return {}
    changed = self._changes()
    workdir_lib.refuse(self.workdir, changed, () if from_step is None else workdir_lib.TUNABLE)
    workdir_lib.check_data(self.workdir, facts)
    return changed


def due(step: int, every: int, last: int) -> bool:
  """Returns True every `every` steps and at the end; 0 means at the end alone."""
  return step == last or (every > 0 and step % every == 0)
