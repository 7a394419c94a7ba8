"""Reports of sweeps: means over seeds, the best of each group by its mean, and one line for each mistake."""

import html
import json
import math
import re
import shutil
import statistics
import subprocess

import pytest
from matplotlib.figure import Figure

from scripts import report, settings, sweep

METRIC = "eval/x/accuracy"
SUMMARY = {"parameters": 1000, "state_bytes": 4096, "step": 2, "wall_seconds": 1.5}
NAN = math.nan
# overrides, accuracies at steps 0, 1, 2; b's second setting is best in the middle alone
RUNS = [
  ({"mixer": "a", "lr": 1}, [0.1, 0.2, 0.3]),
  ({"mixer": "a", "lr": 2}, [0.1, 0.2, 0.5]),
  ({"mixer": "b", "lr": 1}, [0.1, 0.2, 0.4]),
  ({"mixer": "b", "lr": 2}, [0.1, 0.9, NAN]),
]
# one seed of the larger rate is best of all, its mean is not; hybrids and a setting that only failed
SEEDS = [
  *(({"mixer": "a", "lr": 1, "seed": seed}, [0.5, y]) for seed, y in enumerate((0.81, 0.80, 0.82))),
  *(({"mixer": "a", "lr": 2, "seed": seed}, [0.5, y]) for seed, y in enumerate((0.990, 0.522, 0.672))),
  *(({"pattern": "ma", "m": "mamba", "a": "softmax", "lr": 1, "seed": seed}, [0.5, 0.7]) for seed in (0, 1)),
  *(({"pattern": "ra", "r": "rglru", "a": "softmax", "lr": 1, "seed": seed}, [0.5, 0.6]) for seed in (0, 1)),
  ({"mixer": "c", "lr": 1, "seed": 0}, None),
]

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# before all else in a page: what goes wrong in it
WATCH = """<script>
const wrong = [];
addEventListener("error", event => wrong.push(event.message ?? event.target.outerHTML), true);
addEventListener("unhandledrejection", event => wrong.push(String(event.reason)));
console.error = console.warn = (...words) => wrong.push(words.join(" "));
</script>"""
# at its end: clicks on the heads of the second table as often as asked for, then says what the page shows
CLICK = """<script>
addEventListener("load", () => setTimeout(() => {
  const table = document.querySelectorAll("table")[1], column = n => [...table.tBodies[0].rows].map(
    row => row.cells[n].textContent);
  const clicked = (n, times) => { for (let i = 0; i < times; i++) table.tHead.rows[0].cells[n].click(); };
  const orders = [[1, 1], [1, 1], [0, 1], [2, 1]].map(([n, times]) => (clicked(n, times), column(n)));
  const plots = [...document.querySelectorAll(".js-plotly-plot")].map(plot => ({
    lines: [...plot.querySelectorAll(".scatterlayer .js-line")].filter(line => line.getTotalLength() > 50).length,
    points: plot.querySelectorAll(".scatterlayer .point").length,
    bars: plot.querySelectorAll(".errorbar").length,
    ticks: [...plot.querySelectorAll(".xtick")].map(tick => tick.textContent),
    width: plot.querySelector(".main-svg").getBoundingClientRect().width,
  }));
  const loaded = performance.getEntriesByType("resource").map(entry => entry.name);
  const wide = document.documentElement.scrollWidth - innerWidth;
  document.body.dataset.seen = JSON.stringify({wrong, orders, plots, loaded, wide});
}, 0));
</script>"""


def write(folder, runs, **fields):
  """results.jsonl and metrics.jsonl as a sweep leaves them; a run without a curve has failed."""
  lines = []
  for number, (overrides, curve) in enumerate(runs):
    name = f"{fields.get('origin', '')}run{number}"
    line = {"name": name, "overrides": overrides, "status": "failed" if curve is None else "done", "exit": 0}
    if curve is not None:
      line["summary"] = SUMMARY
      (folder / name).mkdir()
      rows = [{"step": step, METRIC: y, "eval/x/loss": 1 - y} for step, y in enumerate(curve)]
      (folder / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines.append(line | fields)
  with open(folder / "results.jsonl", "a") as file:
    file.write("".join(json.dumps(line) + "\n" for line in lines))
  return folder


@pytest.fixture
def folder(tmp_path):
  return write(tmp_path, [*RUNS, ({"mixer": "c"}, None)])


def tables(folder, capsys, *arguments, metric=METRIC):
  assert report.main([str(folder), f"--metric={metric}", *arguments]) == 0
  best, _, everything = capsys.readouterr().out.partition("all:")
  return [
    [line.strip("| ").split(" | ") for line in part.splitlines() if line[:1] == "|"][2:] for part in (best, everything)
  ]


@pytest.mark.parametrize("metric", [METRIC, "eval/x/loss"])
def test_the_best_is_what_ends_best(folder, capsys, metric):
  best, everything = tables(folder, capsys, metric=metric)
  assert [row[0] for row in best] == ["mixer=a,lr=2", "mixer=b,lr=1", "mixer=c"]
  assert [row[0] for row in everything] == [*(f"mixer={x},lr={y}" for x in "ab" for y in (1, 2)), "mixer=c"]


def test_a_part_of_the_settings_is_reported(folder, capsys):
  best, everything = tables(folder, capsys, "--only", "mixer=a,b", "lr=1")
  assert [row[0] for row in best] == [row[0] for row in everything] == ["mixer=a,lr=1", "mixer=b,lr=1"]


def test_a_report_has_costs_and_curves(folder, capsys):
  png = folder / "curves.png"
  best, _ = tables(folder, capsys, f"--png={png}")
  assert best[0] == ["mixer=a,lr=2", "0.5", "1", "1,000", "4,096", "2", "2"]
  assert best[2] == ["mixer=c", "–", "0 of 1", "–", "–", "–", "–"]
  assert png.read_bytes().startswith(b"\x89PNG")


def test_seeds_are_averaged_and_the_rate_is_chosen_by_the_mean(tmp_path, capsys):
  best, everything = tables(write(tmp_path, SEEDS), capsys)
  assert best[0][:3] == ["mixer=a,lr=1", "0.81 ± 0.01", "3"]
  three = (0.990, 0.522, 0.672)
  assert everything[1][:3] == ["mixer=a,lr=2", f"{statistics.mean(three):.4g} ± {statistics.stdev(three):.2g}", "3"]


def test_every_run_is_in_some_group_hybrids_beside_single_mixers(tmp_path, capsys):
  best, everything = tables(write(tmp_path, SEEDS), capsys)
  assert [row[0] for row in best] == [
    "mixer=a,lr=1",
    "pattern=ma,m=mamba,a=softmax,lr=1",
    "pattern=ra,r=rglru,a=softmax,lr=1",
    "mixer=c,lr=1",
  ]
  assert sum(int(row[2].split()[-1]) for row in everything) == len(SEEDS)
  by_rate, _ = tables(tmp_path, capsys, "--by=lr")
  assert [row[0] for row in by_rate] == ["mixer=a,lr=1", "mixer=a,lr=2"]


def test_what_is_shown_on_the_test_set_is_chosen_on_validation(tmp_path, capsys):
  write(tmp_path, [({"mixer": "a", "lr": 1}, [0.3]), ({"mixer": "a", "lr": 2}, [0.2])])
  for number, validation in enumerate((0.1, 0.9)):
    path = tmp_path / f"run{number}" / "metrics.jsonl"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eval/validation/accuracy": validation}))
  best, _ = tables(tmp_path, capsys)
  assert best[0][:2] == ["mixer=a,lr=2", "0.2"]
  best, _ = tables(tmp_path, capsys, f"--choose={METRIC}")
  assert best[0][:2] == ["mixer=a,lr=1", "0.3"]


def test_a_run_that_diverged_is_the_worst_and_one_that_failed_is_counted(tmp_path, capsys):
  write(tmp_path, [({"mixer": "a", "lr": 1, "seed": seed}, [0.4]) for seed in range(2)])
  write(tmp_path, [({"mixer": "a", "lr": 2, "seed": 0}, [0.9])], origin="x")
  write(tmp_path, [({"mixer": "a", "lr": 2, "seed": 1}, None)], exit=3, origin="x")
  write(tmp_path, [({"mixer": "a", "lr": 1, "seed": 2}, None)], exit=1)
  path = tmp_path / "results.jsonl"
  path.write_text(path.read_text().replace('"origin": "x"', '"argument": ""'))
  best, everything = tables(tmp_path, capsys)
  assert best[0][:3] == ["mixer=a,lr=1", "0.4 ± 0", "2 of 3"]
  assert everything[1][:3] == ["mixer=a,lr=2", "nan", "2"]


def test_a_run_counts_once_and_one_that_diverged_at_once_is_drawn(tmp_path, capsys):
  write(tmp_path, [({"mixer": "a", "seed": 0}, [0.4]), ({"mixer": "a", "seed": 1}, [0.6])])
  path = tmp_path / "results.jsonl"
  path.write_text(2 * path.read_text())
  write(tmp_path, [({"mixer": "b|c\n", "seed": 0}, None)], exit=3, origin="", name="b")
  best, _ = tables(tmp_path, capsys, f"--png={tmp_path / 'a.png'}")
  assert [row[:3] for row in best] == [["mixer=a", "0.5 ± 0.14", "2"], [r"mixer=b\|c", "nan", "1"]]


def test_runs_of_other_arguments_or_configs_are_not_mixed(tmp_path, capsys):
  setting = [({"mixer": "a", "seed": seed}, [0.1 * (seed + 1)]) for seed in range(2)]
  write(tmp_path, setting)
  write(tmp_path, setting, origin="1a", argument="steps=5", flags=[])
  write(tmp_path, setting, origin="2b", argument="", flags=["--config.steps=5"])
  write(tmp_path, setting, origin="3c", argument="steps=5", flags=[])
  for table in tables(tmp_path, capsys):
    assert [row[0] for row in table] == [
      "[older] mixer=a",
      "[steps=5 config 1a] mixer=a",
      "[--config.steps=5] mixer=a",
      "[steps=5 config 3c] mixer=a",
    ]
    assert {row[2] for row in table} == {"2"}


def test_two_overrides_make_rows_and_columns(folder, capsys):
  best, _ = tables(folder, capsys, "--by=lr", "--across=mixer")
  costs = ["1", "1,000", "4,096", "2", "2"]
  assert best[0] == ["1", "0.3", *costs, "0.4", *costs, *["–"] * 6]
  assert best[1] == ["2", "0.5", *costs, "nan", *costs, *["–"] * 6]
  assert best[2][-6:] == ["–", "0 of 1", *["–"] * 4]


def test_the_best_at_each_size_makes_a_line(folder, capsys):
  # b's two settings get two sizes, a's stay at one
  lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
  lines[2]["summary"]["state_bytes"] = 8192
  (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  found = settings.against(settings.read(folder), "mixer", "state_bytes", METRIC)
  assert {group: [each.name for each in line] for group, line in found.items()} == {
    "a": ["mixer=a,lr=2"],
    "b": ["mixer=b,lr=2", "mixer=b,lr=1"],
  }
  png = folder / "sizes.png"
  best, _ = tables(folder, capsys, "--across=lr", "--against=state_bytes", f"--png={png}")
  by_rate = settings.against(settings.read(folder), "mixer", "lr", METRIC)
  assert [each.name for each in by_rate["b"]] == ["mixer=b,lr=1", "mixer=b,lr=2"]
  # a panel a learning rate, and c, which has none, in neither
  assert [row[0] for row in best if "=" in row[0]] == [f"mixer={x},lr={y}" for y in (1, 2) for x in "ab"]
  assert png.read_bytes().startswith(b"\x89PNG")


def test_a_group_has_one_colour_in_all_panels(monkeypatch, tmp_path):
  shown = []
  monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: shown.append(figure))
  run = {"status": "done", "summary": {"state_bytes": 8}, "rows": [{"step": 1, "accuracy": 0.5}]}
  line = [settings.Setting({}, "", [run])]
  panels = {"p": {"a": line, "b": line}, "q": {"b": line}}
  report.draw_against(panels, "mixer", "state_bytes", "accuracy", tmp_path / "x.png")
  p, q = shown[0].axes
  colours = [line.get_color() for line in (*p.lines, *q.lines) if line.get_marker() in "os"]
  assert colours[0] != colours[1] == colours[2]
  assert [text.get_text() for text in shown[0].legends[0].texts] == ["a", "b"]


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["--metric=eval/y"], "--metric=eval/y: run run0 has none; choose from ['eval/x/accuracy', 'eval/x/loss']"),
    (
      ["--metric=eval/x/loss", "--choose=y"],
      "--choose=y: run run0 has none; choose from ['eval/x/accuracy', 'eval/x/loss']",
    ),
    (
      ["--metric=eval/x/loss", "--against=flops"],
      "--against=flops: run mixer=a,lr=1 has no such number; "
      "choose from ['lr', 'parameters', 'state_bytes', 'step', 'wall_seconds']",
    ),
    (["--metric=eval/x/loss", "--watch"], "--watch writes a page anew; give --html FILE"),
    (["--metric=eval/x/loss", "--only", "lr=3"], "--only lr=3: no setting has it; it is one of 1, 2"),
    (["--metric=eval/x/loss", "--by=width"], "no run overrides 'width'; choose from ['lr', 'mixer']"),
    (["--png=a.xyz"], "--png=a.xyz: give a file that ends in .png, .pdf, .svg, in a folder that exists"),
  ],
)
def test_mistakes_are_one_line(folder, capsys, arguments, message):
  assert report.main([str(folder), *arguments]) == 2
  assert capsys.readouterr().err == f"report: {message}\n"


def test_a_page_has_all_of_it_and_asks_no_network(tmp_path):
  write(tmp_path, SEEDS, config="configs/x.py:mixer=<a>", argument="", flags=["--config.steps=5"], origin="")
  for number in (0, 3):
    (tmp_path / f"run{number}" / "config.json").write_text(json.dumps({"optimizer": {"lr": number, "b1": 0.9}}))
  (tmp_path / "still").mkdir()
  (tmp_path / "still" / "metrics.jsonl").write_text('{"step": 7, "train/loss": 1.5}\n')
  path = tmp_path / "page.html"
  assert report.main([str(tmp_path), f"--metric={METRIC}", f"--html={path}"]) == 0
  text = path.read_text()
  shown = text.partition("</head>")[2]
  for part in (
    "0.81 ± 0.01",
    'data-value="4096.0"',
    "optimizer.lr",
    "--config.steps=5",
    # pasted, a command goes on where the run is
    f"--workdir {tmp_path}/run3\n",
    "seconds of training",
    "&lt;a&gt;",
    ">still<",
    ">1.5<",
  ):
    assert part in shown, part
  assert "optimizer.b1" not in shown
  assert "<a>" not in shown
  assert 'src="http' not in text
  assert "http-equiv" not in text
  # nothing is left over, and --watch ends where no sweep runs
  assert not list(tmp_path.glob(".*.partial"))
  assert report.main([str(tmp_path), f"--metric={METRIC}", f"--html={path}", "--watch"]) == 0


@pytest.mark.slow
def test_a_browser_without_network_draws_the_page_and_sorts_its_tables(tmp_path):
  browser = next(filter(None, map(shutil.which, BROWSERS)), None)
  if browser is None:
    pytest.skip(f"none of {', '.join(BROWSERS)} is on PATH; apt-get install chromium (Debian)")
  path = tmp_path / "page.html"
  assert report.main([str(write(tmp_path, SEEDS)), f"--metric={METRIC}", f"--html={path}"]) == 0
  text = path.read_text()
  path.write_text(text.replace("<head>", f"<head>{WATCH}", 1).replace("</body>", f"{CLICK}</body>"))
  # no host has an address; the sandbox needs rights that containers do not give
  flags = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
  flags += [f"--user-data-dir={tmp_path / 'browser'}", "--window-size=1300,900", "--virtual-time-budget=10000"]
  done = subprocess.run([browser, *flags, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=300)
  found = re.search('data-seen="([^"]*)"', done.stdout)
  assert found, done.stderr[-1000:]
  seen = json.loads(html.unescape(found[1]))
  assert seen["wrong"] == []
  # the icon of a page is asked for by nobody, and all else is inside
  assert seen["loaded"] == []
  assert seen["wide"] <= 0
  means = ["0.6 ± 0", "0.7 ± 0", "0.728 ± 0.24", "0.81 ± 0.01"]
  up, down, by_name, by_count = seen["orders"]
  assert (up, down) == ([*means, "–"], [*means[::-1], "–"])
  assert by_name == sorted(by_name)
  assert by_count == ["0 of 1", "2", "2", "3", "3"]
  curves, *against = seen["plots"]
  # the last of each group with its band, if its seeds differ
  assert (curves["lines"], curves["points"]) == (4, 6), curves
  assert len(against) == 3
  for plot in against:
    assert (plot["points"], plot["bars"]) == (4, 4), plot
  assert "1,000" in against[1]["ticks"]
  assert all(plot["width"] > 600 for plot in seen["plots"])


def test_a_page_is_there_before_a_run_has_finished(tmp_path, monkeypatch):
  (tmp_path / "still").mkdir()
  (tmp_path / "still" / "metrics.jsonl").write_text('{"step": 7, "train/loss": 1.5}\n')
  (tmp_path / sweep.LOCK).touch()
  pages = []
  monkeypatch.setattr(sweep, "is_running", lambda folder: not pages)
  path = tmp_path / "page.html"
  monkeypatch.setattr(report.time, "sleep", lambda seconds: pages.append(path.read_text()))
  # the sweep ended without a result, which is said as without --watch
  assert report.main([str(tmp_path), f"--html={path}", "--watch"]) == 2
  assert '<meta http-equiv="refresh"' in pages[0]
  assert ">still<" in pages[0]


def test_a_watch_that_is_earlier_than_its_sweep_waits_for_it(tmp_path, monkeypatch, capsys):
  looks = []

  def begins_later(seconds):
    looks.append(seconds)
    if len(looks) == 3:
      write(tmp_path, [({"mixer": "a"}, [0.5])])

  monkeypatch.setattr(report.time, "sleep", begins_later)
  assert report.main([str(tmp_path), f"--metric={METRIC}", f"--html={tmp_path / 'page.html'}", "--watch"]) == 0
  assert looks == [1, 1, 1]
  assert f"no sweep has begun in {tmp_path}; waiting for one" in capsys.readouterr().err
  assert (tmp_path / "page.html").exists()


def test_a_folder_without_a_sweep_or_a_finished_run_is_named(tmp_path, mistaken):
  mistaken(report.main, [str(tmp_path)], "has no results.jsonl")
  mistaken(report.main, [str(write(tmp_path, [({"mixer": "a"}, None)]))], "has no finished run")


def test_lines_cut_short_are_named_and_left_out(folder, capsys):
  with open(folder / "results.jsonl", "a") as file:
    file.write('{"name": "a", "overrides": {}, "summary": [], "status": "done"}\n{"name": "mixer')
  assert report.main([str(folder), f"--metric={METRIC}"]) == 0
  assert "lines 6, 7 are cut short or no result" in capsys.readouterr().err
