"""Tables and curves of what a sweep left behind: means over the seeds of each setting, the best setting of each group.

  ./dev report DIR [--by mixer] [--across task] [--metric eval/validation/accuracy] [--choose eval/validation/accuracy]
      [--only mixer=mamba,s5] [--against state_bytes] [--png curves.png] [--html page.html [--watch]]

A setting is what was run but for its seed; its runs are shown as mean ± standard deviation (n - 1) over their n seeds.
Groups are the settings with the same value of the override --by: by default the mixer or, of a hybrid, pattern and
letters. The best setting of a group, its learning rate among the rest, has the best mean of --choose at the last
evaluation: --metric itself, or the same quantity on the validation set where --metric is of another set and there is
one. A run whose loss was not finite counts as worst; runs that failed otherwise or are not done are counted beside n.
Runs of other arguments, flags or config contents are groups of their own. --only keeps the settings that have one of
these values of each key.

Printed: a Markdown table of the best, with --across one set of columns for each value of another override, and a table
of all settings. Seconds of training are those of the loop, compilation and evaluations among them; a sweep's lines
count the whole process. The PNG has the mean curves of the best. --against puts a number in place of the steps, of the
summaries (state_bytes, parameters, flops …) or an override (lr, width …): the best setting is found for each of its
values, one line a group over a logarithmic axis and, with --across, one panel for each value of that override (Arora et
al. 2024, arXiv:2402.18668, fig. 2).

--html writes one page that needs no network: tables that a click on a head sorts, curves with bands, the metric against
state, parameters, time and memory, the commands, what the configs differ in, and versions. With --watch it is written
anew while the sweep runs, with the runs that have not ended; a browser that shows it follows. In a folder where no
sweep has begun it waits for one.
"""

import argparse
import math
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

from arguments import Parser
from mistake import Mistake
from scripts import page, plan, settings, sweep
from scripts.settings import Setting

PICTURES = (".png", ".pdf", ".svg")
# what is said of each setting
COLUMNS = ("at the end", "seeds", "parameters", "state bytes", "steps", "seconds of training")


def table(found: list[Setting], metric: str) -> str:
  """Writes one line a setting: what was changed, the metric at the end, and what it cost."""
  return _markdown(("run", *COLUMNS), [[each.name, *_cells(each, metric)] for each in found])


def across(found: list[Setting], by: str, key: str, metric: str, choose: str) -> str:
  """Writes one line for each value of the override `by`; for each value of `key`, the columns of the best setting."""
  columns = settings.groups(found, key)
  best = {value: settings.best(column, by, choose) for value, column in columns.items()}
  rows = []
  for group in settings.groups(found, by):
    row = [best[value].get(group) for value in columns]
    rows.append([group, *(cell for each in row for cell in (_cells(each, metric) if each else ["–"] * len(COLUMNS)))])
  return _markdown((by, *(f"{value}: {column}" for value in columns for column in COLUMNS)), rows)


def _cells(setting: Setting, metric: str) -> list[str]:
  mean, deviation = setting.at_the_end(metric)
  done = len(setting.done)
  spread = "" if deviation is None or math.isnan(deviation) else f" ± {deviation:.2g}"
  value = f"{mean:.4g}{spread}" if setting.values(metric) else "–"
  cells = [value, f"{done}" if done == len(setting.runs) else f"{done} of {len(setting.runs)}"]
  for quantity, form in (("parameters", ",.0f"), ("state_bytes", ",.0f"), ("step", ",.0f"), ("wall_seconds", ".0f")):
    number = setting.quantity(quantity)
    cells.append("–" if number is None else format(number, form))
  return cells


def _markdown(head: tuple[str, ...], rows: list[list[str]]) -> str:
  plain = lambda cell: " ".join(cell.splitlines()).replace("|", "\\|")
  return "\n".join(f"| {' | '.join(map(plain, cells))} |" for cells in [head, ["---"] * len(head), *rows])


def draw(best: dict[str, Setting], metric: str, path: Path) -> None:
  """Draws the mean curves of the best settings, one standard deviation shaded."""
  from matplotlib.figure import Figure

  from scripts.pictures.save import save

  figure = Figure(figsize=(9, 4.5), layout="constrained")
  axes = figure.add_subplot(xlabel="step", ylabel=metric)
  for i, (group, setting) in enumerate(best.items()):
    steps, means, deviations = setting.curve(metric)
    label = f"{textwrap.shorten(group, 40)}: {setting.at_the_end(metric)[0]:.3g}, n = {len(setting.values(metric))}"
    (line,) = axes.plot(steps, means, label=label, **_look(i), markersize=4, linewidth=1.2)
    axes.fill_between(steps, means - deviations, means + deviations, color=line.get_color(), alpha=0.2)
  axes.grid(alpha=0.3)
  # beside the curves, which it would cover
  figure.legend(loc="outside right upper", fontsize=8)
  save(figure, path, dpi=110)


def _look(number: int) -> dict[str, Any]:
  return dict(color=f"C{number % 10}", marker="osD^vPX*"[number % 8])


def draw_against(panels: dict[str, dict[str, list[Setting]]], by: str, quantity: str, metric: str, path: Path) -> None:
  """Draws one line for each group of `settings.against`, and one panel for each of its results."""
  from matplotlib import ticker
  from matplotlib.figure import Figure

  from scripts.pictures.save import save

  large = ticker.EngFormatter(sep="")
  text = ticker.FuncFormatter(lambda x, place: large(x, place) if x >= 1 else f"{x:g}")  # 0.03, 1, 30k
  groups = list(dict.fromkeys(group for lines in panels.values() for group in lines))
  # a group looks the same in all panels, also where one of them lacks another group
  looks = {group: _look(i) for i, group in enumerate(groups)}
  figure = Figure(figsize=(1 + 4.2 * len(panels), 3.8), layout="constrained")
  drawn = {}
  for (title, lines), axes in zip(panels.items(), figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]):
    axes.set(xlabel=quantity.replace("_", " "), xscale="log", title=title)
    # Matplotlib's own labels run into each other where there is one power of ten
    axes.xaxis.set(major_locator=ticker.LogLocator(subs=(1, 3)), major_formatter=text)
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    for group, line in lines.items():
      means, deviations = zip(*(setting.at_the_end(metric) for setting in line))
      x = [setting.quantity(quantity) for setting in line]
      drawn[group] = axes.errorbar(x, means, yerr=[each or 0 for each in deviations], capsize=2, **looks[group])
    axes.grid(alpha=0.3)
  figure.axes[0].set_ylabel(metric)
  figure.legend([drawn[group] for group in groups], groups, title=by, loc="outside right upper")
  save(figure, path, dpi=110)


# seconds between two pages of --watch
EVERY = 20


def main(argv: list[str] | None = None) -> int:
  """Prints the tables. Exit code: 0, or 2 for wrong arguments."""
  parser = Parser(prog="report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("folder", type=Path, help="--out of a sweep")
  parser.add_argument("--by", default=settings.MIXER, help="the override that makes the groups")
  parser.add_argument("--across", help="the override whose values stand side by side")
  parser.add_argument("--against", help="the number of the summaries, or the override, that makes the axis")
  parser.add_argument("--only", nargs="+", default=[], metavar="KEY=VALUE,…", help="settings that have these values")
  parser.add_argument("--metric", default="eval/validation/accuracy", help="what is shown")
  parser.add_argument("--choose", help="what the best setting is chosen by; by default the metric on validation")
  parser.add_argument("--png", type=Path, help="file for the curves of the best")
  parser.add_argument("--html", type=Path, help="file for one page of all of it")
  parser.add_argument("--watch", action="store_true", help="write --html anew until the sweep ends, wait for its begin")
  args = parser.parse_args(argv)
  try:
    if args.watch and not args.html:
      raise Mistake("--watch writes a page anew; give --html FILE")
    if args.watch and not sweep.has_begun(args.folder):
      print(f"report: no sweep has begun in {args.folder}; waiting for one, Ctrl-C ends that", file=sys.stderr)
      while not sweep.has_begun(args.folder):
        time.sleep(1)
    while args.watch and sweep.is_running(args.folder):
      write_page(args, refresh=EVERY)
      time.sleep(EVERY)
    print(report(args))
  except (Mistake, OSError) as error:
    print(f"report: {error}", file=sys.stderr)
    return 2
  return 0


def read(args: argparse.Namespace) -> list[Setting]:
  """Reads the settings of the folder, of --only alone where it is given."""
  found = settings.read(args.folder)
  kept = plan.only([setting.overrides for setting in found], args.only)
  return [setting for setting in found if setting.overrides in kept]


def write_page(args: argparse.Namespace, *, refresh: int = 0) -> None:
  """Writes --html; while the sweep runs, also before any run is finished or has the metric."""
  try:
    found = read(args)
    settings.require_metric(found, "--metric", args.metric)
    settings.require_override(found, args.by)
    choose = args.choose or settings.on_validation(found, args.metric)
    settings.require_metric(found, "--choose", choose)
    best = settings.best(found, args.by, choose)
    groups = settings.groups(found, args.by)
  except Mistake:
    if not refresh:
      raise
    groups, best = {}, {}
  page.write(args.html, args.folder, groups, best, args.metric, refresh=refresh)


def report(args: argparse.Namespace) -> str:
  """Writes both tables; draws what is to be drawn."""
  if args.png and (args.png.suffix.lower() not in PICTURES or not args.png.parent.is_dir()):
    raise Mistake(f"--png={args.png}: give a file that ends in {', '.join(PICTURES)}, in a folder that exists")
  found = read(args)
  settings.require_metric(found, "--metric", args.metric)
  choose = args.choose or settings.on_validation(found, args.metric)
  settings.require_metric(found, "--choose", choose)
  for key in (args.by, args.across):
    settings.require_override(found, key)
  best = settings.best(found, args.by, choose)
  if args.against:
    parts = settings.groups(found, args.across) if args.across else {"": found}
    title = lambda value: f"{args.across}={value}" if args.across else ""
    panels = {title(value): settings.against(part, args.by, args.against, choose) for value, part in parts.items()}
    shown = "\n\n".join(
      table([each for line in panel.values() for each in line], args.metric) for panel in panels.values()
    )
  else:
    shown = (
      across(found, args.by, args.across, args.metric, choose) if args.across else table([*best.values()], args.metric)
    )
  if args.png and args.against:
    draw_against(panels, args.by, args.against, args.metric, args.png)
  elif args.png:
    draw({group: setting for group, setting in best.items() if setting.values(args.metric)}, args.metric, args.png)
  if args.html:
    write_page(args)
  return (
    f"{args.metric}, the best by the mean of {choose} over seeds:\n\n{shown}\n\nall:\n\n{table(found, args.metric)}"
  )


if __name__ == "__main__":
  sys.exit(main())
