"""Matched budgets: the size nearest to a budget, also where many sizes have no model, and real models of one."""

import json
import re

import pytest

from mistake import Mistake
from scripts import match, sweep

SQUARE = lambda size: 12.0 * size * size


@pytest.mark.parametrize(
  "value_at, target, start, size",
  [
    (SQUARE, 12.0 * 64**2, 64, 64),
    (SQUARE, 12.0 * 200**2, 64, 200),
    # 96 is 1.03 % off and rounder than what is nearer
    (SQUARE, 12.0 * 96.5**2, 16, 96),
    (SQUARE, 12.0 * 13**2, 512, 13),
    (lambda size: 1000.0 * size, 7000.0, 16, 7),
    # widths of heads of 24 alone
    (lambda size: SQUARE(size) if size % 24 == 0 else None, 12.0 * 121**2, 48, 120),
    # the nearest is far away
    (lambda size: SQUARE(size) if size % 64 == 0 else None, 12.0 * 96.5**2, 64, 64),
    (lambda size: 5.0, 100.0, 16, 16),
    (lambda size: None, 100.0, 16, None),
  ],
)
def test_the_size_nearest_to_the_budget(value_at, target, start, size):
  found = match.solve(value_at, target, start, 0.02)
  if value_at(3) == 5.0:
    # all are equally far
    assert found is not None
  else:
    assert found == size


@pytest.mark.parametrize(
  "text, value", [("parameters=100k", 1e5), ("state=4096", 4096.0), ("flops=1.5M", 1.5e6), ("parameters=7e9", 7e9)]
)
def test_budgets_have_units(text, value):
  assert match.budget(text, "width", 0.02).value == value


@pytest.mark.parametrize(
  "text, tolerance, message",
  [
    ("size=1k", 0.02, "choose from parameters=VALUE"),
    ("parameters=many", 0.02, "is no positive number"),
    ("parameters", 0.02, "is no positive number"),
    ("flops=-1", 0.02, "is no positive number"),
    ("parameters=nan", 0.02, "is no positive number"),
    ("state=1k", 2.0, "--tolerance 2.0"),
  ],
)
def test_a_budget_that_is_none_is_a_mistake(text, tolerance, message):
  with pytest.raises(Mistake, match=message.replace(".", r"\.")):
    match.budget(text, "width", tolerance)


def test_models_meet_the_budget_before_they_run(tmp_path, monkeypatch, capsys):
  ran, counted = [], []
  monkeypatch.setattr(sweep, "run_all", lambda runs, args: ran.extend(runs) or 0)

  def measure(models, setting, quantity):
    counted.append(setting)
    if setting["mixer"] == "mamba":
      raise Mistake("flag --config=x: too\n  wide")
    return SQUARE(setting["width"])

  monkeypatch.setattr(match.Models, "measure", measure)
  command = [
    "--config=configs/mqar.py:vocab=128",
    "--out",
    str(tmp_path / "out"),
    "--match=parameters=12k",
    "--tolerance=0.03",
  ]
  command += ["--grid", "mixer=gru,mamba", "lr=1e-3,2e-3", "--grid", "mixer=gru", "width=8"]
  assert sweep.main(command) == 1
  out, err = capsys.readouterr()
  # one line a model and not a run
  rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines()[2:]]
  assert rows[:2] == [["mixer=gru", "32", "12,288", "+2.4%"], ["mixer=mamba", "–", "–", "too wide"]]
  assert rows[2][3].startswith("it sets width, which --match solves for")
  assert "3 of 5 settings cannot be matched" in err
  assert [run.overrides for run in ran] == [{"mixer": "gru", "lr": lr, "width": 32} for lr in (1e-3, 2e-3)]
  # a damaged file of sizes is written anew
  (tmp_path / "out" / match.FILE).write_text('{"x": ')
  assert sweep.main(command) == 1
  # what was found once is looked at once more
  counted.clear()
  assert sweep.main(command) == 1
  assert [setting["width"] for setting in counted if setting["mixer"] == "gru"] == [32]


def test_matched_sizes_are_seen_without_a_run(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sweep, "run_all", lambda runs, args: pytest.fail("a run was started"))
  monkeypatch.setattr(match.Models, "measure", lambda models, setting, quantity: SQUARE(setting["width"]))
  counts = lambda models, setting: {"parameters": setting["width"], "flops/forward": 1, "memory/training": 2}
  monkeypatch.setattr(match.Models, "counts", counts)
  command = ["--config=configs/mqar.py:vocab=128", "--mode=count", "--match=parameters=12k", "--tolerance=0.03"]
  assert sweep.main([*command, "--grid", "mixer=gru"]) == 0
  matched, _, counted = capsys.readouterr().out.partition("| setting")
  assert re.search(r"mixer=gru +\| 32 +\| 12,288", matched)
  assert re.search(r"mixer=gru,width=32 +\| 32 ", counted)
  assert sweep.main([*command, "--json", "--grid", "mixer=gru", "--grid", "width=8"]) == 1
  out, err = capsys.readouterr()
  assert [json.loads(line)["overrides"] for line in out.splitlines()] == [{"mixer": "gru", "width": 32}]
  assert "it sets width" in err
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["parameters=40k", "state=16.4k", "flops=60k"])
def test_real_models_meet_their_budget(tmp_path, budget):
  models, wanted = match.Models("configs/mqar.py:vocab=128", []), match.budget(budget, "width", 0.02)
  rows = match.match(models, [{"mixer": "mamba"}, {"mixer": "gla"}], wanted, tmp_path)
  for row in rows:
    assert not row.reason
    value = models.measure(row.setting | {"width": row.size}, wanted.quantity)
    assert value == row.value
    assert abs(value - wanted.value) <= 0.02 * wanted.value


@pytest.mark.slow
def test_counts_of_many_settings_are_lines_of_json(capsys):
  command = ["--config=configs/mqar.py:vocab=32,length=16,width=8", "--mode=count", "--json"]
  assert sweep.main([*command, "--grid", "mixer=gru,nothing"]) == 1
  good, bad = (json.loads(line) for line in capsys.readouterr().out.splitlines())
  assert good["overrides"] == {"mixer": "gru"}
  assert good["parameters"] > 0
  assert good["state/kind"] == "fixed"
  assert "nothing" in bad["error"]


@pytest.mark.parametrize(
  "flags, message",
  [
    (["--json", "--out=x"], "--json is for --mode count"),
    ([], "--out is missing"),
    (["--out=x", "--hosts", "a"], "--hosts is for --launcher ssh"),
    (["--out=x", "--slurm", "a=1"], "--slurm is for --launcher slurm"),
  ],
)
def test_flags_that_do_not_fit_together_are_one_line(flags, message, mistaken):
  mistaken(sweep.main, ["--config=configs/mqar.py", *flags], message)
