"""What is wrong with sequences that were read from files: every fault is counted, and the first one is named."""

import pathlib
from typing import TYPE_CHECKING

import numpy as np

from data.sequences import Sequences, numbers
from mistake import Mistake

if TYPE_CHECKING:
  from data.arrays import Arrays


def refuse_any(wrong: np.ndarray, of: int, what: str, *, source: str) -> None:
  """Refuses data of which the numbers in `wrong` are faulty; `what` ends the sentence that says how many are."""
  if len(wrong):
    raise Mistake(f"{source}: {len(wrong)} of {of} {what}, the first is number {wrong[0]}")


def check(task: "Arrays", data: Sequences) -> None:
  """Refuses empty sequences, steps that are no finite features or no tokens, and targets or times that are none.

  Raises:
    Mistake: the first kind of fault that there is, with its count.
  """
  refuse_any(np.flatnonzero(data.lengths == 0), len(data), "sequences are empty", source=task.source)
  if not len(data):
    raise Mistake(f"{task.source} holds no sequence")
  _check_steps(task, data)
  if task.predict != "next":
    _check_targets(task, data)
  if data.times is not None:
    _check_times(task, data)


def _check_steps(task: "Arrays", data: Sequences) -> None:
  rows, features = data.values.shape
  if task.channels and features != task.channels:
    raise Mistake(f"data.channels={task.channels}, but the steps of {task.files!r} have {features} features")
  if not task.tokens:
    finite = np.isfinite(data.values.astype(float)).all(1)
    refuse_any(np.flatnonzero(~finite), rows, "steps are not finite", source=task.source)
    return
  if features != 1:
    raise Mistake(
      f"data.tokens={task.tokens}, but the steps of {task.files!r} have {features} numbers, and a token "
      "is one: choose one with data.inputs, or take data.tokens=0 for features"
    )
  wrong = (data.values < 0) | (data.values >= task.tokens)
  if not np.issubdtype(data.values.dtype, np.integer):
    wrong |= data.values != np.floor(data.values)
  what = f"steps are no token of 0 … {task.tokens - 1}"
  refuse_any(np.flatnonzero(wrong.any(1)), rows, what, source=task.source)


def _check_targets(task: "Arrays", data: Sequences) -> None:
  if data.targets is None:
    raise Mistake(
      f"data.predict={task.predict!r} needs a target of each sequence, and {task.source} has none: name them with "
      "data.targets, or in data.pattern by (?P<label>…)"
    )
  targets = np.asarray(data.targets)
  if task.predict == "number":
    if targets.dtype.kind not in "biuf":
      targets = numbers(pathlib.Path(task.files), task.targets, targets.astype(object).ravel())
    with np.errstate(over="ignore"):
      finite = np.isfinite(targets.astype(np.float32).reshape(len(data), -1)).all(1)
    refuse_any(np.flatnonzero(~finite), len(data), "targets are not finite", source=task.source)
    return
  if targets.size != len(data):
    raise Mistake(
      f"data.targets={task.targets!r} has the shape {targets.shape}; a label is one for each of the {len(data)} "
      "sequences, a number or a name"
    )
  one = lambda each: isinstance(each, (str, bytes, int, float, np.generic)) and each == each and each not in ("", b"")
  missing = np.flatnonzero([not one(each) for each in targets.ravel()])
  refuse_any(missing, len(data), "labels are missing", source=task.source)


def _check_times(task: "Arrays", data: Sequences) -> None:
  times = np.asarray(data.times)
  if times.dtype.kind not in "biuf":
    raise Mistake(f"data.times={task.times!r} are {times.dtype}, no numbers")
  wrong = np.flatnonzero(~np.isfinite(times.astype(float)))
  refuse_any(wrong, len(times), "times are not finite", source=task.source)
  # an unsigned difference is never below 0
  back = times[1:] < times[:-1]
  back[data.starts[1:-1] - 1] = False
  what = "times come before the one in front of them; sort the steps"
  refuse_any(np.flatnonzero(back) + 1, len(times), what, source=task.source)
