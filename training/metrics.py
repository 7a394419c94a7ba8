"""A run's numbers: the speed, the rows of metrics with their display and curve, and the machine they come from.

Everything is written by process 0 alone; on the others the same calls do nothing.
"""

import io
import math
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TaskID,
  TextColumn,
  TimeRemainingColumn,
)

from mistake import Mistake
from training.losses import HIGHER_IS_BETTER
from training.rows import Events, Rows, read_rows
from training.workdir import write_text

ROWS, CURVE, SUMMARY = "metrics.jsonl", "loss.png", "summary.json"
# metrics beside the terminal's bar; the files have the whole row
BAR = ("train/loss", "train/tokens", "train/tokens_per_s", "train/mfu", "train/peak_bytes")


class Clock:
  """Measures training alone: evaluation, saving and the first update, which compiles, are left out of the speed.

  Attributes:
    seconds: wall seconds of earlier processes of the run.
    tokens: of one step; padding counts.
    flops: operations of one token's forward pass. Training is taken to be three times that, whatever it recomputes.
    peak: FLOP/s that `train/mfu` is a share of; 0 leaves it out.
  """

  def __init__(self, seconds: float, *, tokens: int, flops: float):
    self._began = time.monotonic() - seconds
    self._mark = time.monotonic()
    self._steps = 0
    self._tokens, self._flops, self.peak = tokens, flops, 0.0
    self.per_step = math.nan

  @property
  def seconds(self) -> float:
    """Returns the wall time of the whole run in seconds."""
    return time.monotonic() - self._began

  def tick(self, step: int, *, first: int, work: Any) -> None:
    """Counts step `step`, just handed to the device; the first step is waited for and not counted."""
    self._steps += 1
    if step == first:
      jax.block_until_ready(work)
      self._restart()

  def lap(self) -> dict[str, float]:
    """Returns the speed since the last lap, if it can be known yet; call it when the device has finished."""
    if self._steps:
      self.per_step = (time.monotonic() - self._mark) / self._steps
    self._restart()
    if math.isnan(self.per_step):
      return {}
    tokens = self._tokens / self.per_step
    speed = {"train/tokens_per_s": tokens, "train/flops_per_s": 3 * self._flops * tokens}
    return speed | ({"train/mfu": speed["train/flops_per_s"] / self.peak} if self.peak else {})

  def seen(self, step: int) -> float:
    """Returns the tokens of the first `step` updates."""
    return float(step * self._tokens)

  @contextmanager
  def pause(self, work: Any) -> Iterator[None]:
    """Leaves the time inside out of the speed; waits first for `work`, the arrays still being computed."""
    jax.block_until_ready(work)
    began = time.monotonic()
    yield
    self._mark += time.monotonic() - began

  def _restart(self) -> None:
    self._mark, self._steps = time.monotonic(), 0


class Writer:
  """Writes the rows of metrics of one run: JSON lines, TensorBoard, optionally wandb, and a line or a bar to look at.

  Attributes:
    workdir: the run's folder; None writes no files.
    first: step that the run goes on at, None for a new one. Rows of later steps are dropped: a file has one row a step
      and kind.
    wandb: what `find_wandb` gives.
  """

  def __init__(
    self, workdir: Path | None, *, first: int | None, steps: int, config: Mapping[str, Any], wandb: Any = None
  ):
    self._active = jax.process_index() == 0
    if not self._active:
      return
    self._steps, self._workdir = steps, workdir
    self._rows, self._events, self._wandb = None, None, None
    if workdir:
      last = -1 if first is None else first
      self._rows = Rows(workdir / ROWS, last=last)
      folder = workdir / "tensorboard"
      self._events = Events(folder, first=last + 1 if folder.exists() else None)
      self._wandb = _start_wandb(wandb, workdir, config) if wandb else None
    self._console = Console(soft_wrap=True, highlight=False)
    self._progress: Progress | None = None
    self._task = TaskID(0)
    if self._console.is_terminal:
      columns = (MofNCompleteColumn(), BarColumn(20), TextColumn("{task.description}"), TimeRemainingColumn())
      self._progress = Progress(*columns, TextColumn("left"), console=self._console)
      self._task = self._progress.add_task("", total=steps, completed=first or 0)
      self._progress.start()

  def tick(self, step: int) -> None:
    """Moves the bar."""
    if self._active and self._progress:
      self._progress.update(self._task, completed=step)

  def log(self, step: int, row: Mapping[str, float], *, left: float = math.nan) -> None:
    """Writes a row everywhere. `left`: seconds until the end, for the line where there is no bar."""
    if not self._active:
      return
    if self._rows and self._events:
      self._rows.write({"step": step} | {key: value if math.isfinite(value) else None for key, value in row.items()})
      self._events.write(step, row)
    if self._wandb:
      self._wandb.log(dict(row), step=step)
    if self._progress and "train/loss" in row:
      text = "  ".join(_word(key, row[key]) for key in BAR if key in row)
      self._progress.update(self._task, completed=step, description=text)
    else:
      text = "  ".join(_word(key, value) for key, value in row.items())
      eta = f"  {_duration(left)} left" if math.isfinite(left) else ""
      self.say(f"step {step}/{self._steps}  {text}{eta}")

  @contextmanager
  def doing(self, text: str) -> Iterator[None]:
    """Shows what takes its time inside: beside the bar, or as a line where there is no bar."""
    bar = self._progress if self._active else None
    if bar is None:
      self.say(text)
      yield
      return
    before = bar.tasks[0].description
    bar.update(self._task, description=text)
    yield
    bar.update(self._task, description=before)

  def say(self, text: str) -> None:
    """Prints a line, above the bar where there is one."""
    if self._active:
      self._console.print(text, markup=False)

  def close(self) -> None:
    """Draws the curve and closes everything."""
    if not self._active:
      return
    if self._progress:
      self._progress.stop()
    if self._rows and self._events and self._workdir:
      self._rows.close()
      self._events.close()
      try:
        draw(self._workdir / ROWS)
      except OSError as error:
        self.say(f"warning: {CURVE} cannot be drawn: {error.strerror}")
    if self._wandb:
      self._wandb.finish()


def draw(path: Path) -> None:
  """Draws the training and evaluation losses over the steps, as a PNG beside the rows."""
  # matplotlib takes a second to import, which a run should not wait for at its start
  from matplotlib.figure import Figure

  rows = read_rows(path)
  names = dict.fromkeys(key for row in rows for key in row if key.endswith("/loss"))
  figure = Figure(figsize=(7, 4.5), layout="constrained")
  axes = figure.add_subplot(xlabel="step", ylabel="loss")
  for name in names:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    if points:
      axes.plot(*zip(*points), label=name, marker="" if name.startswith("train/") else "o", markersize=3)
  if axes.lines:
    axes.legend()
  axes.grid(alpha=0.3)
  picture = io.BytesIO()
  figure.savefig(picture, dpi=120)
  write_text(path.with_name(CURVE), picture.getvalue())


def better(best: Mapping[str, Any], step: int, row: Mapping[str, float]) -> dict[str, Any]:
  """Returns the best value so far of every evaluation metric, with its step."""
  new = dict(best)
  for key, value in row.items():
    if math.isfinite(value) and (key not in best or sign(key) * value > sign(key) * best[key]["value"]):
      new[key] = {"value": value, "step": step}
  return new


def sign(metric: str) -> int:
  """Returns 1 for a metric that is better when it is higher, -1 for the others."""
  return 1 if metric.rsplit("/", 1)[-1] in HIGHER_IS_BETTER else -1


def find_wandb(wanted: bool) -> Any:
  """Imports the library, or returns None where it is not wanted.

  Raises:
    ValueError: it is wanted and not installed.
  """
  if not wanted:
    return None
  try:
    import wandb
  except ImportError:
    raise Mistake("wandb=True, but wandb is not installed; EXTRAS=wandb ./dev setup, or wandb=False") from None
  return wandb


def _start_wandb(wandb: Any, workdir: Path, config: Mapping[str, Any]) -> Any:
  identity = workdir / "wandb_id.txt"
  if not identity.exists():
    write_text(identity, uuid.uuid4().hex)
  return wandb.init(dir=str(workdir), name=workdir.name, id=identity.read_text(), config=dict(config), resume="allow")


def _word(key: str, value: float) -> str:
  kind, _, name = key.partition("/")
  name = name if kind == "train" else key
  rates = {"tokens": "tokens", "tokens_per_s": "tokens/s", "flops_per_s": "FLOP/s"}
  if key == "train/mfu":
    return f"MFU {100 * value:.3g} %"
  if key == "train/peak_bytes":
    return f"peak {value / 2**30:.3g} GiB"
  return f"{_short(value)} {rates[name]}" if name in rates else f"{name} {value:.4g}"


def _short(value: float) -> str:
  for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
    if value >= size:
      return f"{value / size:.3g}{letter}"
  return f"{value:.3g}"


def _duration(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02}:{seconds:02}"
