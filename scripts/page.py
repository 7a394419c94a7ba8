"""The report of a sweep as one HTML file that needs no network: plotly's script travels inside it."""

import html
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ending
from mistake import Mistake
from scripts.settings import Setting
from training import config_file, metrics

# numbers of the summaries that the metric is drawn against, where runs have them
AXES = {
  "state_bytes": "state of a sequence in bytes",
  "parameters": "parameters",
  "wall_seconds": "seconds of training",
  "peak_bytes": "peak memory in bytes",
}
COLUMNS = ("n", "parameters", "state bytes", "FLOPs per token", "steps", "seconds of training", "peak bytes")
QUANTITIES = ("parameters", "state_bytes", "flops_per_token", "step", "wall_seconds", "peak_bytes")
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
DASHES = ("solid", "dash", "dot", "dashdot")
SECONDS = (
  "Seconds of training are those of the loop, compilation and evaluations among them; the lines of ./dev sweep count "
  "the whole process, which starts Python and reads the data, too."
)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 84rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #ddd; padding: .2rem .7rem; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left; white-space: normal }
th { cursor: pointer; background: #f4f4f4; white-space: normal; vertical-align: bottom }
th[data-order]::after { content: " ↑" } th[data-order="-1"]::after { content: " ↓" }
pre { background: #f4f4f4; padding: .7rem; white-space: pre-wrap; overflow-wrap: anywhere } .wide { overflow-x: auto }
"""
# a click on a head sorts by its column: numbers by data-value, all else as text
SORT = """
for (const head of document.querySelectorAll("th")) head.onclick = () => {
  const order = head.dataset.order == "1" ? -1 : 1, body = head.closest("table").tBodies[0];
  for (const other of head.parentNode.cells) delete other.dataset.order;
  head.dataset.order = order;
  const value = row => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent;
  const text = (a, b) => isNaN(a) || isNaN(b);
  const known = (a, b) => order * (text(a, b) ? a.localeCompare(b) : a - b);
  // what has no value comes last in both orders
  const compare = (a, b) => a === "" || b === "" ? (a === "") - (b === "") : known(a, b);
  body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))));
};
"""


def write(
  path: Path,
  folder: Path,
  groups: Mapping[str, Sequence[Setting]],
  best: Mapping[str, Setting],
  metric: str,
  *,
  refresh: int = 0,
) -> None:
  """Writes the page.

  Args:
    folder: of the sweep.
    groups, best: all settings and the best one of each group; empty where no run is finished.
    refresh: seconds after which a browser loads the page again; 0 is never.
  Raises:
    Mistake: plotly is not installed.
  """
  try:
    from plotly.offline import get_plotlyjs
  except ImportError:
    raise Mistake("--html needs plotly; ./dev setup installs it") from None
  found = [setting for part in groups.values() for setting in part]
  title = f"{folder.resolve().name}: {metric}"
  parts = [f"<h1>{html.escape(title)}</h1>"]
  if found:
    parts += ["<h2>The best of each group</h2>", _table(list(best.values()), metric)]
    parts += ["<h2>Curves</h2>", _curves(best, metric)]
    parts += [f"<h2>Against {AXES[key]}</h2>{shown}" for key in AXES if (shown := _against(groups, best, metric, key))]
    parts += ["<h2>All settings</h2>", f"<p>{SECONDS}</p>", _table(found, metric)]
  parts += _running(folder, found)
  if found:
    parts += _commands(folder, found) + _differences(folder, found) + _versions(found)
  reload = f'<meta http-equiv="refresh" content="{refresh}">' if refresh else ""
  head = f'<meta charset="utf-8">{reload}<title>{html.escape(title)}</title><style>{STYLE}</style>'
  text = f"<!doctype html><html><head>{head}<script>{get_plotlyjs()}</script></head><body>{''.join(parts)}"
  with ending.unfinished(path) as partial:
    partial.write_text(f"{text}<script>{SORT}</script></body></html>")


def _table(found: Sequence[Setting], metric: str) -> str:
  rows = []
  for setting in found:
    mean, deviation = setting.at_the_end(metric)
    shown = f"{mean:.4g}" + (f" ± {deviation:.2g}" if deviation is not None and deviation == deviation else "")
    known = bool(setting.values(metric))
    n = f"{len(setting.done)}" + (f" of {len(setting.runs)}" if len(setting.done) < len(setting.runs) else "")
    cells: list[tuple[str, Any]] = [(setting.name, setting.name), (shown, mean) if known else ("–", "")]
    cells.append((n, len(setting.done)))
    for quantity in QUANTITIES:
      number = setting.quantity(quantity)
      cells.append(("–", "") if number is None else (f"{number:,.0f}", number))
    rows.append(cells)
  return _html_table(["setting", f"{metric} at the end, mean ± sd", *COLUMNS], rows)


def _html_table(head: Sequence[str], rows: Sequence[Sequence[tuple[str, Any]]]) -> str:
  """Makes a table of cells, each of what is shown and what is sorted by."""
  cell = lambda text, value: f'<td data-value="{html.escape(str(value))}">{text}</td>'
  rest = lambda cells: "".join(cell(html.escape(shown), value) for shown, value in cells)
  # names of settings, which have no spaces, may break after a comma
  first = lambda shown, value: cell(html.escape(shown).replace(",", ",<wbr>"), value)
  body = "".join(f"<tr>{first(*row[0])}{rest(row[1:])}</tr>" for row in rows)
  heads = "".join(f"<th>{html.escape(each)}</th>" for each in head)
  return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _look(number: int) -> dict[str, Any]:
  return {"color": COLOURS[number % len(COLOURS)], "dash": DASHES[number // len(COLOURS) % len(DASHES)]}


def _curves(best: Mapping[str, Setting], metric: str) -> str:
  """Draws the mean curves of the best settings with bands of one standard deviation."""
  from plotly import graph_objects as go

  figure = go.Figure()
  for number, (group, setting) in enumerate(best.items()):
    if not setting.values(metric):
      continue
    steps, means, deviations = setting.curve(metric)
    look = _look(number)
    label = f"{group}, n = {len(setting.values(metric))}"
    figure.add_scatter(x=steps.tolist(), y=means.tolist(), name=label, line=look, legendgroup=group)
    if deviations.any():
      edge = [*(means + deviations).tolist(), *(means - deviations).tolist()[::-1]]
      around = dict(fill="toself", fillcolor=look["color"], opacity=0.2, line={"width": 0}, hoverinfo="skip")
      both = [*steps.tolist(), *steps.tolist()[::-1]]
      figure.add_scatter(x=both, y=edge, mode="lines", showlegend=False, legendgroup=group, **around)
  figure.update_layout(xaxis_title="step", yaxis_title=metric)
  return _figure(figure)


def _against(groups: Mapping[str, Sequence[Setting]], best: Mapping[str, Setting], metric: str, quantity: str) -> str:
  """Draws the metric of every setting over a number of its summary, the best ones filled; empty without such."""
  from plotly import graph_objects as go

  known = lambda part: [each for each in part if each.values(metric) and each.quantity(quantity)]
  if not any(map(known, groups.values())):
    return ""
  figure = go.Figure()
  for number, group in enumerate(best):
    part = known(groups[group])
    ends = [each.at_the_end(metric) for each in part]
    figure.add_scatter(
      x=[each.quantity(quantity) for each in part],
      y=[mean for mean, _ in ends],
      error_y={"array": [deviation or 0 for _, deviation in ends]},
      text=[each.name for each in part],
      mode="markers",
      name=group,
      marker={
        "color": _look(number)["color"],
        "size": 10,
        "symbol": ["circle" if each is best[group] else "circle-open" for each in part],
      },
    )
  numbers = [each.quantity(quantity) for part in groups.values() for each in known(part)]
  # whole numbers, where plotly has digits without their powers of ten; over a decade or more only at 1, 2 and 5
  ticks = {"tickformat": ",~r"} | ({} if 1 < max(numbers) / min(numbers) < 10 else {"dtick": "D2"})
  figure.update_layout(xaxis={"title": AXES[quantity], "type": "log", **ticks}, yaxis_title=metric)
  return _figure(figure)


def _figure(figure: Any) -> str:
  figure.update_layout(template="plotly_white", height=460, margin={"t": 20, "l": 60, "r": 20, "b": 50})
  return figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False})


def _running(folder: Path, found: Sequence[Setting]) -> list[str]:
  """Shows the last row of each run that has no result yet."""
  ended = {run["folder"] for setting in found for run in setting.runs}
  rows = []
  for path in sorted(folder.glob(f"*/{metrics.ROWS}")):
    if path.parent.name in ended:
      continue
    last: dict[str, Any] = {}
    for row in metrics.read_rows(path):
      last |= row
    loss = last.get("train/loss")
    step = last.get("step", 0)
    shown = "–" if loss is None else f"{loss:.4g}"
    rows.append([(path.parent.name, path.parent.name), (f"{step:,}", step), (shown, "" if loss is None else loss)])
  return ["<h2>Not ended</h2>", _html_table(["run", "step", "train/loss"], rows)] if rows else []


def _commands(folder: Path, found: Sequence[Setting]) -> list[str]:
  """Shows the commands of the runs, each in its folder of the sweep."""
  lines = [
    f"./dev run {shlex.join(['--config', run['config'], *run['flags'], '--workdir', str(folder / run['folder'])])}"
    for setting in found
    for run in setting.runs
    if run.get("config")
  ]
  return [f"<h2>Commands</h2><pre>{html.escape(chr(10).join(lines))}</pre>"] if lines else []


def _differences(folder: Path, found: Sequence[Setting]) -> list[str]:
  """Shows the keys of the configs whose values are not the same in all settings."""
  columns = {}
  for setting in found:
    path = folder / setting.runs[0]["folder"] / "config.json"
    if path.is_file():
      columns[setting.name] = dict(config_file.flat(json.loads(path.read_text())))
  keys = dict.fromkeys(key for column in columns.values() for key in column)
  differ = [key for key in keys if len({repr(column.get(key)) for column in columns.values()}) > 1]
  if not differ:
    return []
  value = lambda column, key: json.dumps(column[key]) if key in column else ""
  rows = [[(name, name), *((value(column, key),) * 2 for key in differ)] for name, column in columns.items()]
  return ["<h2>Differences of the configs</h2>", _html_table(["setting", *differ], rows)]


def _versions(found: Sequence[Setting]) -> list[str]:
  """Shows devices and versions that the runs name, with how many runs name them."""
  counts: dict[tuple[str, str], int] = {}
  for run in (run for setting in found for run in setting.done):
    summary = run["summary"]
    facts = {"device": summary.get("device"), "devices": summary.get("devices")} | summary.get("versions", {})
    for key, value in facts.items():
      if value is not None:
        counts[key, str(value)] = counts.get((key, str(value)), 0) + 1
  rows = [[(key, key), (value, value), (str(count), count)] for (key, value), count in counts.items()]
  return ["<h2>Versions</h2>", _html_table(["what", "version", "runs"], rows)] if rows else []
