"""Tables and curves of what `scripts/sweep.py` left behind: of each group of runs the best, beside all others.

  python scripts/report.py DIR [--by mixer] [--across task] [--metric eval/validation/accuracy] [--png curves.png]
      [--against state_bytes]

Groups are the runs with the same value of the override --by; the best of each has the best --metric at its last
evaluation: a run is judged by what it ends with. Printed: a Markdown table of the best, with --across one set of
columns for each value of another override, and a table of all runs. The PNG has the curves of the best. --against puts
a number of each run's summary in place of the steps (state_bytes, parameters, flops …): the best run of each group is
found for each of its values, printed and drawn, one line a group over a logarithmic axis and, with --across, one panel
for each value of that override (Arora et al. 2024, arXiv:2402.18668, fig. 2).
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mistake import Mistake
from scripts.sweep import RESULTS, read_results
from training import metrics

# what is said of each run
COLUMNS = ("at the end", "parameters", "state bytes", "steps", "seconds")


def read(folder: Path, metric: str) -> list[dict[str, Any]]:
  """The finished runs of a sweep, each with its `curve`: (step, value) of the metric.

  Raises:
    ValueError: the folder has no results, or a run has no such metric.
  """
  path = folder / RESULTS
  if not path.is_file():
    raise Mistake(f"{folder} has no {RESULTS}; give the --out folder of a sweep")
  runs = [run for run in read_results(path).values() if run["status"] == "done"]
  for run in runs:
    rows = metrics.read_rows(folder / run["name"] / "metrics.jsonl")
    run["curve"] = [(row["step"], row[metric]) for row in rows if metric in row]
    if not run["curve"]:
      choices = sorted({key for row in rows for key in row if key.startswith("eval/")})
      raise Mistake(f"--metric={metric}: run {run['name']} has none; choose from {choices}")
  return runs


def best_of(runs: list[dict[str, Any]], by: str, metric: str) -> dict[str, dict[str, Any]]:
  """The run of each group that ends best; nan is worse than anything.

  Raises:
    ValueError: no run overrides `by`.
  """
  groups = _groups(runs, by)
  if not groups:
    raise Mistake(f"--by={by}: no run overrides it; choose from {sorted({k for r in runs for k in r['overrides']})}")
  return {group: _best(found, metric) for group, found in groups.items()}


def against(runs: list[dict[str, Any]], by: str, quantity: str, metric: str) -> dict[str, list[dict[str, Any]]]:
  """For each value of the override `by`, the run that ends best at each value of a number in the summaries, in order.

  Raises:
    ValueError: no run overrides `by`, or a run has no such number.
  """
  for run in runs:
    if not isinstance(run["summary"].get(quantity), (int, float)):
      choices = sorted(key for key, value in run["summary"].items() if isinstance(value, (int, float)))
      raise Mistake(f"--against={quantity}: run {run['name']} has no such number; choose from {choices}")
  lines = {}
  for group in best_of(runs, by, metric):
    at: dict[float, list[dict[str, Any]]] = {}
    for run in _groups(runs, by)[group]:
      at.setdefault(run["summary"][quantity], []).append(run)
    lines[group] = [_best(at[value], metric) for value in sorted(at)]
  return lines


def table(runs: list[dict[str, Any]]) -> str:
  """One line a run: what was changed, the metric at the end, and what it cost."""
  return _markdown(("run", *COLUMNS), [[run["name"], *_cells(run)] for run in runs])


def across(runs: list[dict[str, Any]], by: str, key: str, metric: str) -> str:
  """One line for each value of the override `by`; for each value of `key`, the columns of the best such run.

  Raises:
    ValueError: no run overrides `by` or `key`.
  """
  values = dict.fromkeys(best_of(runs, key, metric))
  best = {x: best_of([run for run in runs if str(run["overrides"].get(key)) == x], by, metric) for x in values}
  rows = []
  for group in best_of(runs, by, metric):
    found = [best[x].get(group) for x in values]
    rows.append([group, *(cell for run in found for cell in (_cells(run) if run else ["–"] * len(COLUMNS)))])
  return _markdown((by, *(f"{x}: {column}" for x in values for column in COLUMNS)), rows)


def _groups(runs: list[dict[str, Any]], by: str) -> dict[str, list[dict[str, Any]]]:
  """The runs by the value of an override, those without it left out."""
  groups: dict[str, list[dict[str, Any]]] = {}
  for run in runs:
    if by in run["overrides"]:
      groups.setdefault(str(run["overrides"][by]), []).append(run)
  return groups


def _best(runs: list[dict[str, Any]], metric: str) -> dict[str, Any]:
  sign = metrics.sign(metric)
  return max(runs, key=lambda run: -math.inf if math.isnan(run["curve"][-1][1]) else sign * run["curve"][-1][1])


def _cells(run: dict[str, Any]) -> list[str]:
  summary = run["summary"]
  state = summary.get("state_bytes")
  numbers = [f"{run['curve'][-1][1]:.4g}", f"{summary['parameters']:,}", "–" if state is None else f"{state:,}"]
  return [*numbers, f"{summary['step']:,}", f"{summary['wall_seconds']:.0f}"]


def _markdown(head: Sequence[str], rows: list[list[str]]) -> str:
  return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def draw(best: dict[str, dict[str, Any]], metric: str, path: Path) -> None:
  """The curves of the best runs."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(7, 4.5), layout="constrained")
  axes = figure.add_subplot(xlabel="step", ylabel=metric)
  for run in best.values():
    axes.plot(*zip(*run["curve"]), label=f"{run['name']}: {run['curve'][-1][1]:.3g}", marker="o", markersize=3)
  axes.grid(alpha=0.3)
  axes.legend()
  figure.savefig(path, dpi=110)


def draw_against(panels: dict[str, dict[str, list[dict[str, Any]]]], quantity: str, metric: str, path: Path) -> None:
  """One line for each group of `against`, and one panel for each of its results."""
  from matplotlib.figure import Figure

  groups = list(dict.fromkeys(group for lines in panels.values() for group in lines))
  # a group looks the same in all panels, also where one of them lacks another group
  looks = {group: dict(color=f"C{i % 10}", marker="osD^vPX*"[i % 8]) for i, group in enumerate(groups)}
  figure = Figure(figsize=(1 + 4.2 * len(panels), 3.8), layout="constrained")
  drawn = {}
  for (title, lines), axes in zip(panels.items(), figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]):
    axes.set(xlabel=quantity.replace("_", " "), xscale="log", title=title)
    for group, line in lines.items():
      x, y = [run["summary"][quantity] for run in line], [run["curve"][-1][1] for run in line]
      (drawn[group],) = axes.plot(x, y, **looks[group])
    axes.grid(alpha=0.3)
  figure.axes[0].set_ylabel(metric)
  figure.legend([drawn[group] for group in groups], groups, loc="outside right upper")
  figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> int:
  """Prints the tables. Exit code: 0, or 2 for wrong arguments."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("folder", type=Path, help="--out of a sweep")
  parser.add_argument("--by", default="mixer", help="the override that makes the groups")
  parser.add_argument("--across", help="the override whose values stand side by side")
  parser.add_argument("--against", help="the number of the summaries that makes the axis")
  parser.add_argument("--metric", default="eval/validation/accuracy")
  parser.add_argument("--png", type=Path, help="file for the curves of the best")
  args = parser.parse_args(argv)
  try:
    runs = read(args.folder, args.metric)
    best = best_of(runs, args.by, args.metric)
    if args.against:
      parts = _groups(runs, args.across) if args.across else {"": runs}
      panels = {title: against(part, args.by, args.against, args.metric) for title, part in parts.items()}
      shown = "\n\n".join(table([run for line in lines.values() for run in line]) for lines in panels.values())
    else:
      shown = across(runs, args.by, args.across, args.metric) if args.across else table(list(best.values()))
  except ValueError as error:
    print(f"report: {error}", file=sys.stderr)
    return 2
  print(f"best by {args.metric}:\n\n{shown}\n\nall:\n\n{table(runs)}")
  if args.png and args.against:
    draw_against(panels, args.against, args.metric, args.png)
  elif args.png:
    draw(best, args.metric, args.png)
  return 0


if __name__ == "__main__":
  sys.exit(main())
