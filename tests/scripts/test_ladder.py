"""The ladder: tokens in proportion to parameters, a law that is found again, and a sweep that goes on."""

import json

import numpy as np
import pytest

from scripts import ladder, sweep
from scripts.ladder import Rung

RUNGS = [
  Rung(8, 1_000, 20, 20_000),
  Rung(16, 4_000, 80, 80_000),
  Rung(32, 16_000, 320, 320_000),
  Rung(64, 64_000, 1280, 1_280_000),
]


@pytest.mark.parametrize("E, A, alpha", [(1.7, 400.0, 0.34), (0.0, 20.0, 0.2), (0.5, 1e4, 1.0)])
def test_the_law_is_found_again(E, A, alpha):
  N = np.geomspace(1e3, 1e7, 6)
  law = ladder.fit(N, E + A * N**-alpha)
  assert (law.E, law.A, law.alpha) == pytest.approx((E, A, alpha), rel=1e-2, abs=1e-3)
  np.testing.assert_allclose(law(N), E + A * N**-alpha, rtol=1e-3)


def test_standard_errors_are_the_spread_over_draws():
  random = np.random.default_rng(0)
  N = np.array([2e4, 5e4, 1e5, 2e5, 4e5, 8e5])
  laws = [ladder.fit(N, 1.5 + 40 * N**-0.3 + random.normal(0, 0.005, len(N))) for _ in range(40)]
  spread = np.std([law[:3] for law in laws], axis=0)
  said = np.median([law.errors for law in laws], axis=0)
  np.testing.assert_allclose(said, spread, rtol=0.4)


def test_too_few_rungs_fit_nothing():
  assert ladder.fit([1e3, 1e4, 1e5], [3.0, 2.0, 1.5]) is None
  assert ladder.describe(None, 3) == "no fit: 3 rungs are done, 4 are needed"


def test_rungs_train_on_tokens_in_proportion(monkeypatch):
  class Models:
    def __init__(self, config, flags):
      pass

    def tokens(self, setting):
      return 100

    def measure(self, setting, quantity):
      return {8: 1_000, 16: 4_040}[setting["width"]]

  monkeypatch.setattr(ladder, "Models", Models)
  assert ladder.rungs("x", [], "width", [8, 16], 2.5) == [Rung(8, 1_000, 25, 2_500), Rung(16, 4_040, 101, 10_100)]


def test_the_ladder_is_a_sweep_that_goes_on(tmp_path, monkeypatch, capsys):
  ran = []

  def run_in(runs, args):
    ran.append([run.overrides for run in runs])
    args.out.mkdir(exist_ok=True)
    lines = []
    for run, rung in list(zip(runs, RUNGS))[: 2 * len(ran)]:
      summary = {"metrics": {"eval/validation/loss": 1.0 + 50 * rung.parameters**-0.5}}
      line = {"name": run.name, "overrides": run.overrides, "status": "done", "summary": summary}
      lines.append(line | {"digest": run.digest})
    # the same sizes of another config in the same folder
    other = {"metrics": {"eval/validation/loss": 9.0}}
    lines += [line | {"name": f"x{line['name']}", "digest": "x", "summary": other} for line in lines]
    (args.out / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return 0 if len(ran) > 1 else 75

  monkeypatch.setattr(sweep, "run_in", run_in)
  monkeypatch.setattr(ladder, "rungs", lambda *_: RUNGS)
  out = tmp_path / "out"
  command = ["--config=configs/mqar.py", f"--out={out}", "--rungs=8,16,32,64"]
  assert ladder.main([*command, "--dry-run"]) == 0
  assert not ran
  assert ladder.main(command) == 75
  assert "no fit: 2 rungs are done, 4 are needed" in capsys.readouterr().out
  assert ladder.main(command) == 0
  assert ran[1] == [{"width": rung.size, "steps": rung.steps} for rung in RUNGS]
  assert "L = E + A N^-α: E = 1 ±" in capsys.readouterr().out
  found = json.loads((out / "ladder.json").read_text())
  assert [rung["loss"] for rung in found["rungs"]] == [1.0 + 50 * rung.parameters**-0.5 for rung in RUNGS]
  assert found["law"]["alpha"] == pytest.approx(0.5, rel=1e-3)
  alone = (out / "ladder.png").read_bytes()
  assert alone.startswith(b"\x89PNG")
  (out / "ladder.json").rename(tmp_path / "ladder.json")
  assert ladder.main([*command, f"--beside={tmp_path}"]) == 0
  assert (out / "ladder.png").read_bytes() != alone


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["--rungs=8,x"], "--rungs 8,x: give whole numbers"),
    (["--rungs=16,8"], "give whole numbers that grow"),
    (["--rungs=8,16", "--tokens_per_parameter=0"], "--tokens_per_parameter 0.0"),
    (["--rungs=8", "--config=configs/nothing.py"], "configs/nothing.py"),
    (["--rungs=8", "--beside", "nowhere"], "--beside nowhere: it has no ladder.json"),
  ],
)
def test_mistakes_are_one_line(tmp_path, mistaken, arguments, message):
  mistaken(ladder.main, ["--config=configs/mqar.py", f"--out={tmp_path / 'out'}", *arguments], message)
