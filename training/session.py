"""One session of training: the folder that it locks, the progress of the run, and the files that it writes."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from hybrids import pattern
from kernels import dispatch
from mistake import Mistake
from training import hardware, manifest, metrics, processes, schedule
from training import state as state_lib
from training import workdir as workdir_lib
from training.checkpoint import Checkpoints, Restored
from training.step import check_finite


@dataclasses.dataclass
class Progress:
  """The progress of a run; a checkpoint holds it as JSON."""

  step: int = 0
  evaluated: int = -1  # step of the last evaluation
  seconds: float = 0.0
  last: dict[str, float] = dataclasses.field(default_factory=dict)  # newest value of every metric
  best: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)


class Folder:
  """A run's folder while the run trains there. The order is: lock, check, write; so a refused run changes nothing.

  Attributes:
    path: the folder; None for a run in memory, which keeps nothing.
  """

  def __init__(self, path: Path | None, config: ConfigDict):
    self.path, self.config = path, config
    self.checkpoints: Checkpoints | None = None
    self.journal: dict[str, Any] = {}

  def lock(self) -> None:
    """Locks the folder for this run.

    Raises:
      Mistake: another run has it.
    """
    if self.path is None:
      return
    self.checkpoints = Checkpoints(self.path / "checkpoints", keep=self.config.save.keep or None, saved=self._saved)
    self.checkpoints.hold()
    self.journal = processes.from_first(self._read_journal)
    self.checkpoints.run = self.journal["id"]

  def _read_journal(self) -> dict[str, Any]:
    assert self.path is not None, "a run in memory has no journal"
    assert self.checkpoints is not None, "the folder is locked"
    journal = workdir_lib.read_journal(self.path)
    if not (self.path / workdir_lib.JOURNAL).exists():
      # the folder of an older version, or a journal that was lost: its newest checkpoint knows whose it is
      runs = (manifest.run_of(self.checkpoints.directory / str(step)) for step in reversed(self.checkpoints.steps()))
      journal["id"] = next(filter(None, runs), journal["id"])
    return journal

  def restore(self, like: state_lib.TrainState, *, from_step: int | None = None) -> Restored | None:
    """Restores the newest checkpoint, or that of `from_step` and moves later ones away; None for a new run.

    Raises:
      Mistake: what was saved is gone; or see Checkpoints.restore.
    """
    if self.checkpoints is None:
      return None
    if from_step is not None:
      self.checkpoints.rewind(from_step)
    restored = self.checkpoints.restore(like)
    if restored is None and self.journal["saved"]:
      raise Mistake(
        f"{self.path} had a checkpoint of step {self.journal['saved']}, and none is left that can be used; put it "
        "back, or use another --workdir"
      )
    return restored

  def write(self, facts: Mapping[str, Any], changed: Mapping[str, Any], step: int) -> None:
    """Writes the run's config, the facts about its data, and a journal of its changes into the folder."""
    if self.path is None or jax.process_index() > 0:
      return
    if changed:
      note = {"step": step, "keys": {key: list(pair) for key, pair in changed.items()}}
      self.journal["changes"].append(note)
    self.journal["saved"] = step
    workdir_lib.write_json(self.path / workdir_lib.JOURNAL, self.journal)
    workdir_lib.write_json(self.path / workdir_lib.CONFIG, workdir_lib.plain(self.config))
    workdir_lib.write_json(self.path / workdir_lib.DATA, dict(facts))

  def _saved(self, step: int) -> None:
    assert self.path is not None, "a run in memory saves nothing"
    self.journal["saved"] = step
    workdir_lib.write_json(self.path / workdir_lib.JOURNAL, self.journal)

  def finish(self, step: int) -> None:
    """Returns when the last checkpoint is written and intact.

    Raises:
      Mistake: it is not; or there is not one, as the disk was full.
    """
    if self.checkpoints is not None and self.checkpoints.steps():
      self.checkpoints.verify(step)

  def summarize(self, facts: Mapping[str, Any], progress: Progress) -> None:
    """Writes the results and the progress of the run to summary.json."""
    if self.path is None or jax.process_index() > 0:
      return
    numbers = {"step": progress.step, "wall_seconds": progress.seconds, "metrics": progress.last, "best": progress.best}
    # of a run that has failed, the first error is what is said, not that its folder is gone or full
    with contextlib.suppress(*([OSError] if facts.get("status") == "failed" else [])):
      workdir_lib.write_json(self.path / metrics.SUMMARY, dict(facts) | numbers | hardware.surroundings())

  def close(self) -> None:
    """Frees the folder; a save that failed has been reported by then, or is reported here."""
    if self.checkpoints is not None:
      self.checkpoints.close()


class Session:
  """The work between two updates of the training loop: logging, saving and timing."""

  def __init__(self, folder: Folder, batches: Iterator, progress: Progress, writer: metrics.Writer, clock: Any):
    self.folder, self.batches, self.progress = folder, batches, progress
    self.writer, self.clock = writer, clock
    self._best = folder.config.save.best

  def evaluate(self, evaluations: Sequence[Any], step: int, state: Any, reads: str) -> bool:
    """Evaluates what is due, each in its turn, and logs one row of all. True where `save.best` is better than ever.

    Args:
      reads: what the evaluation of the task's own sets reads.
    """
    row: dict[str, float] = {}
    for one in evaluations:
      check_finite(state.seen)
      with self.pause(state), self.evaluating(one.about or reads):
        row |= one.ask(state.variables, step)
    return bool(row) and self.evaluated(step, row)

  def evaluated(self, step: int, row: Mapping[str, float]) -> bool:
    """Logs a row of evaluation. True where the metric of `save.best` is better than ever."""
    progress = self.progress
    progress.best = metrics.better(progress.best, step, row)
    progress.last |= row
    progress.evaluated = step
    self.writer.log(step, row)
    return bool(self._best) and self._best_step() == step

  def _best_step(self) -> int:
    return int(self.progress.best.get(self._best, {}).get("step", 0))

  def at(self, step: int) -> None:
    """Notes that the loop has reached `step`."""
    self.progress.step, self.progress.seconds = step, self.clock.seconds

  def save(self, step: int, state: Any) -> None:
    """Saves the state with the position in the data; the file is written while training goes on."""
    if self.folder.checkpoints is not None:
      extra = dataclasses.asdict(self.progress)
      section, steps = self.folder.config.optimizer, self.folder.config.steps
      self.folder.checkpoints.stay = {self._best_step(), schedule.turn(section, steps)}
      self.folder.checkpoints.save(step, state, data_state=self.batches.get_state(), extra=extra)

  def tick(self, step: int, first: int, work: Any) -> None:
    """Counts an update handed to the device; the first one is waited for, as it compiles."""
    self.clock.tick(step, first=first, work=work)
    self.writer.tick(step + 1)

  def pause(self, work: Any) -> contextlib.AbstractContextManager[None]:
    """Leaves the time inside out of the speed."""
    return self.clock.pause(work)

  def evaluating(self, what: str) -> contextlib.AbstractContextManager[None]:
    """Says what the evaluation inside reads, as it may take minutes."""
    return self.writer.doing(f"evaluating {what}")

  def row(self, step: int, row: Mapping[str, float]) -> None:
    """Logs a row of training, and the speed since the row before."""
    memory = {"train/peak_bytes": float(hardware.peak_bytes())}
    row = {**row, "train/tokens": self.clock.seen(step), **self.clock.lap(), **memory}
    self.progress.last |= row
    self.writer.log(step, row, left=(self.folder.config.steps - step) * self.clock.per_step)

  def greet(self, resumed: bool, parameters: int, devices: int, chosen: dispatch.Chosen) -> None:
    """Prints the state of the run at the start, and by which implementations of the ops an update runs."""
    config, step = self.folder.config, self.progress.step
    kind = jax.devices()[0].device_kind
    accumulate = config.optimizer.get("accumulate", 1)
    unit = f"updates of {accumulate} batches each" if accumulate > 1 else "step" if config.steps == 1 else "steps"
    where = f"going on at step {step} of {config.steps}" if resumed else f"starting a run of {config.steps} {unit}"
    body = config.model.body
    layers = body.name
    if "letters" in body:
      # a letter may be a branch around its mixer
      mixers = {key: (spec if "name" in spec else spec["mixer"])["name"] for key, spec in body.letters.items()}
      # and a mixer its class, as in a notebook
      names = {key: getattr(name, "__name__", name) for key, name in mixers.items()}
      layers = pattern.describe(body.pattern, body.depth, names)
    peak = hardware.peak()
    self.clock.peak = peak.flops_per_s
    self.writer.say(f"{where}: {layers}; {parameters:,} parameters, {devices} x {kind}")
    self.writer.say(f"MFU is the share of {peak.source}")
    if chosen:
      self.writer.say(f"implementations: {dispatch.describe(chosen)}")

  @contextlib.contextmanager
  def compiling(self, work: str, *, first: bool) -> Iterator[None]:
    """Says before the first call of a program that it is being compiled, and after it for how long."""
    if not first:
      yield
      return
    self.writer.say(f"compiling {work} …")
    began = time.monotonic()
    yield
    self.writer.say(f"compiled {work} in {time.monotonic() - began:.1f} s")
