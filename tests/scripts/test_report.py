"""Reports of sweeps: the best of each group by what it ends with, and one line for each mistake."""

import json

import pytest
from matplotlib.figure import Figure

from scripts import report

# name -> (overrides, accuracies at steps 0, 1, 2); b's second run is best in the middle alone
RUNS = {
  "a1": ({"mixer": "a", "lr": 1}, [0.1, 0.2, 0.3]),
  "a2": ({"mixer": "a", "lr": 2}, [0.1, 0.2, 0.5]),
  "b1": ({"mixer": "b", "lr": 1}, [0.1, 0.2, 0.4]),
  "b2": ({"mixer": "b", "lr": 2}, [0.1, 0.9, float("nan")]),
}


@pytest.fixture
def folder(tmp_path):
  lines = [{"name": "c", "status": "failed", "overrides": {"mixer": "c"}}]
  for name, (overrides, curve) in RUNS.items():
    (tmp_path / name).mkdir()
    rows = [{"step": step, "eval/x/accuracy": y, "eval/x/loss": 1 - y} for step, y in enumerate(curve)]
    (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = {"parameters": 1000, "state_bytes": 4096, "step": 2, "wall_seconds": 1.5}
    lines.append({"name": name, "status": "done", "overrides": overrides, "summary": summary})
  (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  return tmp_path


@pytest.mark.parametrize("metric", ["eval/x/accuracy", "eval/x/loss"])
def test_the_best_is_what_ends_best(folder, metric):
  best = report.best_of(report.read(folder, metric), "mixer", metric)
  assert {group: run["name"] for group, run in best.items()} == {"a": "a2", "b": "b1"}


def test_a_report_has_tables_and_curves(folder, capsys):
  png = folder / "curves.png"
  assert report.main([str(folder), "--metric=eval/x/accuracy", f"--png={png}"]) == 0
  best, everything = capsys.readouterr().out.split("all:")
  assert "| a2 | 0.5 | 1,000 | 4,096 | 2 | 2 |" in best
  assert "a1" not in best
  assert all(name in everything for name in RUNS)
  assert png.read_bytes().startswith(b"\x89PNG")


def test_two_overrides_make_rows_and_columns(folder, capsys):
  assert report.main([str(folder), "--metric=eval/x/accuracy", "--by=lr", "--across=mixer"]) == 0
  best, _ = capsys.readouterr().out.split("all:")
  costs = "1,000 | 4,096 | 2 | 2"
  assert f"| 1 | 0.3 | {costs} | 0.4 | {costs} |\n| 2 | 0.5 | {costs} | nan | {costs} |" in best


def test_the_best_at_each_size_makes_a_line(folder, capsys):
  # b's two runs get two sizes, a's stay at one
  lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
  for line in lines:
    if line["name"] == "b1":
      line["summary"]["state_bytes"] = 8192
  (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  metric = "eval/x/accuracy"
  runs = report.read(folder, metric)
  found = report.against(runs, "mixer", "state_bytes", metric)
  assert {group: [run["name"] for run in line] for group, line in found.items()} == {"a": ["a2"], "b": ["b2", "b1"]}
  png = folder / "sizes.png"
  assert report.main([str(folder), f"--metric={metric}", "--across=lr", "--against=state_bytes", f"--png={png}"]) == 0
  best, _ = capsys.readouterr().out.split("all:")
  assert [name for name in RUNS if name in best] == list(RUNS)
  assert png.read_bytes().startswith(b"\x89PNG")


def test_a_group_has_one_colour_in_all_panels(monkeypatch, tmp_path):
  shown = []
  monkeypatch.setattr(Figure, "savefig", lambda figure, path, dpi: shown.append(figure))
  line = [{"summary": {"state_bytes": 8}, "curve": [(1, 0.5)]}]
  report.draw_against({"p": {"a": line, "b": line}, "q": {"b": line}}, "state_bytes", "accuracy", tmp_path / "x.png")
  p, q = shown[0].axes
  colours = [line.get_color() for line in (*p.lines, *q.lines)]
  assert colours[0] != colours[1] == colours[2]
  assert [text.get_text() for text in shown[0].legends[0].texts] == ["a", "b"]


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["--metric=eval/y"], "--metric=eval/y: run a1 has none; choose from ['eval/x/accuracy', 'eval/x/loss']"),
    (
      ["--metric=eval/x/loss", "--against=flops"],
      "--against=flops: run a1 has no such number; choose from ['parameters', 'state_bytes', 'step', 'wall_seconds']",
    ),
    (["--metric=eval/x/loss", "--by=width"], "--by=width: no run overrides it; choose from ['lr', 'mixer']"),
  ],
)
def test_mistakes_are_one_line(folder, capsys, arguments, message):
  assert report.main([str(folder), *arguments]) == 2
  assert capsys.readouterr().err == f"report: {message}\n"


def test_a_folder_without_a_sweep_is_named(tmp_path, capsys):
  assert report.main([str(tmp_path)]) == 2
  assert "has no results.jsonl" in capsys.readouterr().err
