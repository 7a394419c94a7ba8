"""Draws how runs do on their tasks: accuracy against length or depth, confusion, predictions, and samples.

  ./dev pictures DIR [DIR ...] --out FOLDER [--set NAME] [--metric accuracy] [--rows 512] [--length N] [--step N]

DIR are workdirs of runs.

  sets.png        the metric of each evaluation set of the last evaluation, and of evaluators, against the number in
                  their names, such as the length in length_64 … length_1024; runs without numbers are left out.
  positions.png   for language models: the loss of a token by its position, with --length in longer rows than those of
                  the training.
  NAME_experts.png  for models with mixtures of experts: how many choices fall on each.
  NAME_confusion.png  for classifiers: how often rows of each class are taken for each class.
  NAME_numbers.png    for regressions: what is predicted against what is so.
  NAME_samples.png    the first rows of the set with their targets and predictions: pictures, curves or tokens; of a
                      forecast windows from all over the rows, and what comes after them.
  NAME_horizon.png    for forecasts of each of the next steps: the error by the steps ahead.

All but the first are of the run NAME, from up to --rows rows of the evaluation set --set, by default its first.
Exit codes: 0 done; 2 a mistake in what was asked for, in one line.
"""

import argparse
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from arguments import Parser, at_least
from mistake import Mistake, hint
from scripts.pictures import experts, forecast, positions
from scripts.pictures.save import save
from training import metrics, platform
from training.rows import read_rows
from training.run import Run

# samples on a page, and tokens shown of each
SHOWN, TOKENS = 16, 48
MOST_CLASSES = 64
# of which the use of experts is counted
MOST_ROWS = 64


class Answers(NamedTuple):
  """Rows of an evaluation set: its batches' arrays, and the model's answers."""

  batch: dict[str, np.ndarray]
  answers: np.ndarray


def by_number(row: dict[str, Any], metric: str) -> dict[str, list[tuple[float, float]]]:
  """Returns the values of a metric by what the names of the sets have in common: (number, value), sorted.

  "length_64_depth_10" and "length_64_depth_50" differ in the last number, which makes the axis; so "length_64_depth_#".
  """
  lines: dict[str, list[tuple[float, float]]] = {}
  for key, value in row.items():
    match = re.fullmatch(rf"(?!train/)(?:eval/)?(.*?)(\d+)(\D*)/{re.escape(metric)}", key)
    if match and value is not None:
      lines.setdefault(f"{match[1]}#{match[3]}", []).append((float(match[2]), value))
  return {name: sorted(points) for name, points in lines.items() if len(points) > 1}


def last_evaluation(workdir: Path, metric: str) -> dict[str, Any]:
  """Returns the last row of metrics that has the metric of an evaluation set; empty if there is none."""
  rows = [row for row in read_rows(workdir / metrics.ROWS) if any(_is_of(key, metric) for key in row)]
  return rows[-1] if rows else {}


def _is_of(key: str, metric: str) -> bool:
  return key.startswith("eval/") and key.endswith(f"/{metric}")


def draw_sets(workdirs: list[Path], metric: str) -> Figure | None:
  """Draws one line for each run and kind of set; returns None where no run has sets with numbers."""
  figure = Figure(figsize=(7, 4.5), layout="constrained")
  axes = figure.add_subplot(ylabel=metric)
  numbers: list[float] = []
  for workdir in workdirs:
    for name, points in by_number(last_evaluation(workdir, metric), metric).items():
      x, y = zip(*points)
      numbers += x
      axes.plot(x, y, marker="o", markersize=3, label=f"{workdir.name}: {name}")
  if not numbers:
    return None
  if min(numbers) > 0 and max(numbers) >= 16 * min(numbers):
    axes.set_xscale("log", base=2)
  axes.set_xlabel("# of the evaluation set")
  axes.grid(alpha=0.3)
  axes.legend(fontsize=7)
  return figure


def collect(run: Run, wanted: str | None, rows: int) -> Answers:
  """Returns the answers for the first rows of an evaluation set that count.

  Raises:
    Mistake: there is no such set.
  """
  sets = run.task.eval_sets()
  name = wanted or next(iter(sets))
  if name not in sets:
    raise Mistake(f"--set={name}: {run.name} has no such evaluation set{hint(name, list(sets))}; it has {list(sets)}")
  batches: list[dict[str, np.ndarray]] = []
  answers: list[np.ndarray] = []
  for batch in sets[name]():
    batches.append(batch)
    answers.append(np.asarray(run.predict(batch), np.float32))
    if sum(map(len, answers)) >= rows:
      break
  whole = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
  weights = whole["weights"].reshape(len(whole["weights"]), -1)
  counts = np.flatnonzero(weights.any(axis=1))[:rows]
  return Answers({key: value[counts] for key, value in whole.items()}, np.concatenate(answers)[counts])


def draw_confusion(answers: Answers, classes: int) -> Figure:
  """Draws labels as rows and predictions as columns, each row's shares in per cent."""
  counts = np.zeros((classes, classes))
  np.add.at(counts, (answers.batch["targets"], answers.answers.argmax(axis=-1)), 1)
  shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
  figure = Figure(figsize=(2 + 0.4 * classes, 1.6 + 0.4 * classes), layout="constrained")
  axes = figure.add_subplot(xlabel="predicted", ylabel="label", title=f"{len(answers.answers)} rows, % of each label")
  axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
  for (label, predicted), share in np.ndenumerate(shares):
    axes.text(predicted, label, f"{share:.0f}", ha="center", va="center", fontsize=7, color="C3" if share > 50 else "k")
  axes.set_xticks(range(classes))
  axes.set_yticks(range(classes))
  return figure


def draw_numbers(answers: Answers) -> Figure:
  """Draws a point for each row and number."""
  figure = Figure(figsize=(5, 5), layout="constrained")
  axes = figure.add_subplot(xlabel="target", ylabel="predicted", title=f"{len(answers.answers)} rows")
  target = answers.batch["targets"].ravel()
  axes.plot(target, answers.answers.ravel(), ".", markersize=3)
  axes.plot([target.min(), target.max()], [target.min(), target.max()], color="k", linewidth=0.8)
  axes.grid(alpha=0.3)
  return figure


def draw_samples(run: Run, answers: Answers) -> Figure:
  """Draws the first rows: images where pixels fill a square, otherwise curves of the features; or tokens as lines."""
  rows = min(SHOWN, len(answers.answers))
  inputs, lengths = answers.batch["inputs"][:rows], answers.batch.get("lengths")
  titles = [caption(answers, row) for row in range(rows)]
  sizes = [inputs.shape[1] if lengths is None else int(lengths[row]) for row in range(rows)]
  if run.task.features is None:
    figure = Figure(figsize=(9, 0.6 * rows + 0.5), layout="constrained")
    for row, axes in enumerate(figure.subplots(rows, 1, squeeze=False)[:, 0]):
      axes.axis("off")
      axes.text(
        0, 0.5, written(run, answers, row, sizes[row]), fontsize=7, family="monospace", va="center", parse_math=False
      )
      axes.set_title(titles[row], fontsize=7, loc="left")
    return figure
  side = math.isqrt(inputs.shape[1])
  is_image = side**2 == inputs.shape[1] and side >= 8 and run.task.features in (1, 3) and len(set(sizes)) == 1
  columns = 4
  figure = Figure(figsize=(9, 2.3 * math.ceil(rows / columns)), layout="constrained")
  every = figure.subplots(math.ceil(rows / columns), columns, squeeze=False).ravel()
  for row, axes in enumerate(every):
    if row >= rows:
      axes.axis("off")
      continue
    x = inputs[row, : sizes[row]]
    if is_image:
      low, high = x.min(), max(x.max(), x.min() + 1e-6)
      axes.imshow(((x - low) / (high - low)).reshape(side, side, -1).squeeze(), cmap="gray")
      axes.axis("off")
    else:
      axes.plot(x, linewidth=0.7)
    axes.set_title(titles[row], fontsize=7)
  return figure


def caption(row_answers: Answers, row: int) -> str:
  """Returns what a row's target is and what was predicted."""
  targets, answers, weights = (
    row_answers.batch["targets"][row],
    row_answers.answers[row],
    row_answers.batch["weights"][row],
  )
  if np.issubdtype(targets.dtype, np.floating):
    return f"target {targets.ravel()[0]:.3g}, predicted {answers.ravel()[0]:.3g}"
  predicted = answers.argmax(axis=-1)
  if targets.ndim == 0:
    return f"target {targets}, predicted {predicted}"
  scored = np.flatnonzero(weights > 0)
  right = int((predicted[scored] == targets[scored]).sum())
  first = scored[:12]
  return f"{right} of {len(scored)} right; targets {targets[first].tolist()}, predicted {predicted[first].tolist()}"


def written(run: Run, answers: Answers, row: int, size: int) -> str:
  """Returns the end of a row's tokens: as text where they are bytes of one, otherwise as numbers."""
  tokens = answers.batch["inputs"][row, max(0, size - TOKENS) : size]
  start = "… " if size > TOKENS else ""
  # tokens of 256 kinds that are no text are seldom printable
  if run.task.vocab == 256 and np.mean((tokens >= 32) & (tokens < 127) | np.isin(tokens, (9, 10, 13))) > 0.8:
    return start + "".join(chr(token) if 32 <= token < 127 else "·" for token in tokens)
  return start + " ".join(map(str, tokens))


def opened(folder: Path, args: argparse.Namespace) -> Run:
  """Opens a run, with rows of another length if that is asked for."""
  config = None if args.length is None else positions.longer(folder, args.length)
  return Run.open(folder, step=args.step, config=config, devices=jax.devices()[:1])


def draw_positions(runs: list[Run], collected: dict[str, Answers]) -> Figure | None:
  """Draws one line for each run that predicts next tokens; returns None where there is no such run."""
  answers = {run.name: collected[run.name] for run in runs}
  models = [run for run in runs if positions.predicts_tokens(run, answers[run.name].batch["weights"])]
  if not models:
    return None
  lines = {run.name: positions.losses(answers[run.name].batch, answers[run.name].answers) for run in models}
  return positions.draw(lines, {run.name: run.task.length for run in models})


def pages(run: Run, answers: Answers) -> Iterator[tuple[str, Figure]]:
  """Yields the pictures of one run, by the end of their names."""
  if layers := experts.shares(run, answers.batch["inputs"][:MOST_ROWS]):
    yield "experts", experts.draw(layers)
  if answers.answers.ndim == 2 and run.task.classes and run.task.classes <= MOST_CLASSES:
    yield "confusion", draw_confusion(answers, run.task.classes)
  if np.issubdtype(answers.batch["targets"].dtype, np.floating):
    yield "numbers", draw_numbers(answers)
  steps = forecast.steps_ahead(run.task)
  if steps is None or run.task.features is None:
    yield "samples", draw_samples(run, answers)
    return
  yield "samples", forecast.draw_samples(answers.batch, answers.answers, steps)
  if len(steps) > 1:
    yield "horizon", forecast.draw_errors(answers.batch, answers.answers, steps, run.name)


def main(argv: list[str] | None = None) -> int:
  """Draws. Exit code: 0, or 2 for a mistake in what was asked for."""
  parser = Parser(prog="pictures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("workdirs", type=Path, nargs="+", metavar="DIR", help="workdir of a run")
  parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
  parser.add_argument("--set", help="evaluation set; the first by default")
  parser.add_argument("--metric", default="accuracy", help="of sets.png")
  parser.add_argument("--rows", type=int, default=512, help="of the evaluation set, at most")
  parser.add_argument(
    "--length", type=at_least(1), help="tokens of the rows that language models read; the task's by default"
  )
  parser.add_argument("--step", type=int, help="checkpoint to use; the newest by default")
  args = parser.parse_args(argv)
  try:
    if args.rows < 1:
      raise Mistake(f"--rows={args.rows}; give at least 1")
    platform.prepare()
    runs = [opened(folder, args) for folder in args.workdirs]
    names = [run.name for run in runs]
    if same := sorted({name for name in names if names.count(name) > 1}):
      raise Mistake(f"several of the folders are called {same[0]!r}, as their pictures would be; draw them one by one")
    collected = {run.name: collect(run, args.set, args.rows) for run in runs}
    figures = {f"{run.name}_{kind}.png": figure for run in runs for kind, figure in pages(run, collected[run.name])}
    if by_position := draw_positions(runs, collected):
      figures = {"positions.png": by_position} | figures
    sets = draw_sets(args.workdirs, args.metric)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, figure in (({"sets.png": sets} if sets else {}) | figures).items():
      save(figure, args.out / name, dpi=110)
      print(args.out / name)
  except (Mistake, OSError) as error:
    print(f"pictures: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
