"""Time against length, one panel for each op, size, dtype and pass; the floor is dashed."""

import math
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLUMNS = 4


def draw(rows: Sequence[dict], path: str) -> None:
  """Writes the picture of the rows, as `scripts.bench.measure` makes them, that belong to a panel; there are some."""
  panels = {row["panel"]: [r for r in rows if r.get("panel") == row["panel"]] for row in rows if "panel" in row}
  columns = min(COLUMNS, len(panels))
  lines = math.ceil(len(panels) / columns)
  figure, axes = plt.subplots(lines, columns, figsize=(5 * columns, 3.6 * lines), squeeze=False, layout="constrained")
  for axis in axes.flat[len(panels) :]:
    axis.remove()
  for axis, (panel, of_panel) in zip(axes.flat, panels.items()):
    _panel(axis, panel, of_panel)
  figure.savefig(path, dpi=120)
  plt.close(figure)


def _panel(axis, title: str, rows: Sequence[dict]) -> None:
  for name in dict.fromkeys(row["name"] for row in rows):
    timed = sorted((r for r in rows if r["name"] == name and "median_ms" in r), key=lambda r: r["length"])
    if timed:
      lengths, median = [r["length"] for r in timed], [r["median_ms"] for r in timed]
      spread = [[m - r["q1_ms"] for m, r in zip(median, timed)], [r["q3_ms"] - m for m, r in zip(median, timed)]]
      axis.errorbar(lengths, median, spread, marker="o", markersize=3, capsize=2, label=name)
  floors = sorted({(row["length"], row["floor_ms"]) for row in rows})
  axis.plot(*zip(*floors), "k--", marker="_", label="floor")
  axis.set(xscale="log", yscale="log", xlabel="tokens of a row", ylabel="milliseconds")
  axis.set_title(title, fontsize=8)
  axis.legend(fontsize=7)
