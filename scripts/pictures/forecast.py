"""Forecasts: what a run expects after some windows of a series, and how its errors grow with the steps ahead."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

# windows on a page, and how many times the steps ahead are shown of what was read
SHOWN, PAST = 9, 3


def steps_ahead(task: Any) -> np.ndarray | None:
  """Returns which steps after a window a task asks for; None where it is no forecast."""
  if getattr(task, "predict", None) != "next":
    return None
  return np.arange(1, task.horizon + 1) if task.ahead == "each" else np.array([task.horizon])


def draw_samples(batch: Mapping[str, np.ndarray], answers: np.ndarray, steps: np.ndarray) -> Figure:
  """Draws windows from all over the set: the ends of the columns that are forecast, and what is so and expected after.

  Args:
    batch: inputs "rows steps features", of which the columns that are forecast come first, and targets.
    answers: as the targets, "rows steps·columns".
  """
  rows = np.unique(np.linspace(0, len(answers) - 1, SHOWN).round().astype(int))
  columns = answers.shape[1] // len(steps)
  past = min(batch["inputs"].shape[1], max(8, PAST * int(steps[-1])))
  before, across = np.arange(1 - past, 1), 3
  figure = Figure(figsize=(10, 2.6 * math.ceil(len(rows) / across)), layout="constrained")
  every = figure.subplots(math.ceil(len(rows) / across), across, squeeze=False, sharex=True).ravel()
  for axes in every[len(rows) :]:
    axes.axis("off")
  mark = "." if len(steps) == 1 else None
  for axes, row in zip(every, rows):
    for column in range(columns):
      color = f"C{column % 10}"
      axes.plot(before, batch["inputs"][row, -past:, column], color=color, linewidth=0.9)
      so, expected = (z[row].reshape(len(steps), columns)[:, column] for z in (batch["targets"], answers))
      for label, values, style, alpha in (("what came", so, "-", 0.5), ("expected", expected, "--", 1.0)):
        axes.plot(steps, values, style, marker=mark, color=color, alpha=alpha, label=None if column else label)
    axes.axvline(0, color="k", linewidth=0.5)
    axes.set_title(f"window {row}", fontsize=8)
  every[0].legend(fontsize=7)
  return figure


def draw_errors(batch: Mapping[str, np.ndarray], answers: np.ndarray, steps: np.ndarray, name: str) -> Figure:
  """Draws the mean squared error by the steps ahead, beside that of repeating the last value."""
  columns = answers.shape[1] // len(steps)
  by_step = lambda z: z.reshape(len(z), len(steps), columns)
  so = by_step(batch["targets"])
  last = batch["inputs"][:, -1:, :columns]
  figure = Figure(figsize=(6, 4), layout="constrained")
  title = f"{len(answers)} windows, {columns} column{'s' * (columns > 1)}"
  axes = figure.add_subplot(xlabel="steps ahead", ylabel="mean squared error", title=title)
  for label, found in ((name, by_step(answers)), ("repeating the last value", last)):
    axes.plot(steps, np.square(found - so).mean(axis=(0, 2)), marker=".", label=label)
  axes.set_ylim(bottom=0)
  axes.grid(alpha=0.3)
  axes.legend(fontsize=8)
  return figure
