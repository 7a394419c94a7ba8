"""Sweeps: every setting runs once, failures are told and stop nothing, and the same command goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts import sweep

CONFIG = """
def get_config(arg=""):
  raise AssertionError("only main.py reads the config")

def get_sweep():
  for mixer in ("s5", "broken"):
    for lr in (1e-2, 1e-3):
      yield dict(mixer=mixer, lr=lr)
"""
# stands in for main.py: notes how it was called, and fails where told
MAIN = """
import json, pathlib, signal, sys, time
config, workdir = sys.argv[2], pathlib.Path(sys.argv[4])
with open(workdir / "calls", "a") as f:
  f.write(json.dumps(sys.argv[1:]) + "\\n")
if "slow" in sys.argv:
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
  (workdir / "started").touch()
  time.sleep(60)
if "mixer=broken" in config and not (workdir / "repaired").exists():
  print("Traceback …")
  sys.exit("main: no mixer is called 'broken'")
(workdir / "summary.json").write_text(json.dumps({"eval/loss": 0.5}))
"""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
  (tmp_path / "main.py").write_text(MAIN)
  (tmp_path / "config.py").write_text(CONFIG)
  monkeypatch.setattr(sweep, "ROOT", tmp_path)
  return tmp_path


def run(place: Path, *args: str, config: str = "config.py") -> int:
  return sweep.main(["--config", str(place / config), "--out", str(place / "out"), *args])


def results(place: Path) -> dict[str, dict]:
  return {r["name"]: r for r in map(json.loads, (place / "out" / "results.jsonl").read_text().splitlines())}


def calls(place: Path, name: str) -> list[list[str]]:
  return [json.loads(line) for line in (place / "out" / name / "calls").read_text().splitlines()]


def test_every_setting_runs_and_failures_are_told(place, capsys):
  assert run(place, "--jobs", "3") == 1
  found = results(place)
  assert sorted(found) == ["mixer=broken,lr=0.001", "mixer=broken,lr=0.01", "mixer=s5,lr=0.001", "mixer=s5,lr=0.01"]
  good, bad = found["mixer=s5,lr=0.01"], found["mixer=broken,lr=0.01"]
  assert good["status"] == "done"
  assert good["overrides"] == {"mixer": "s5", "lr": 0.01}
  assert good["summary"] == {"eval/loss": 0.5}
  assert (bad["status"], bad["exit"]) == ("failed", 1)
  assert bad["error"] == "main: no mixer is called 'broken'"
  captured = capsys.readouterr()
  assert "2 of 4 runs done" in captured.err
  assert len(captured.out.splitlines()) == 4


def test_same_command_repeats_only_what_failed(place):
  assert run(place) == 1
  for folder in (place / "out").glob("mixer=broken*"):
    (folder / "repaired").touch()
  assert run(place) == 0
  assert len(results(place)) == 4
  assert len(calls(place, "mixer=s5,lr=0.01")) == 1
  assert len(calls(place, "mixer=broken,lr=0.01")) == 2


def test_arguments_reach_main(place):
  run(place, "--", "--config.steps=7", config="config.py:width=8")
  (call,) = calls(place, "mixer=s5,lr=0.01")
  out = str(place / "out" / "mixer=s5,lr=0.01")
  config = str(place / "config.py") + ":width=8,mixer=s5,lr=0.01"
  assert call == ["--config", config, "--workdir", out, "--config.steps=7"]


def test_tuples_keep_their_commas():
  setting = {"data.stages": ((0, 1), (5, 2)), "lr": 1e-3}
  assert sweep.argument(setting) == "data.stages=((0, 1), (5, 2)),lr=0.001"
  assert sweep.run_name(setting) == "data.stages=__0,_1_,__5,_2__,lr=0.001"


def test_interrupted_sweep_lets_its_runs_save_and_starts_no_more(place):
  script = (
    f"import pathlib, sys; from scripts import sweep; sweep.ROOT = pathlib.Path({str(place)!r}); sys.exit(sweep.main())"
  )
  command = [
    sys.executable,
    "-c",
    script,
    "--config",
    str(place / "config.py"),
    "--out",
    str(place / "out"),
    "--",
    "slow",
  ]
  process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  started = place / "out" / "mixer=s5,lr=0.01" / "started"
  while not started.exists() and process.poll() is None:
    time.sleep(0.05)
  os.kill(process.pid, signal.SIGTERM)
  _, err = process.communicate(timeout=30)
  assert process.returncode == 75, err
  assert [(r["name"], r["status"], r["exit"]) for r in results(place).values()] == [
    ("mixer=s5,lr=0.01", "interrupted", 75)
  ]
  assert run(place) == 1
  assert len(calls(place, "mixer=s5,lr=0.01")) == 2
  assert results(place)["mixer=s5,lr=0.01"]["status"] == "done"


@pytest.mark.parametrize(
  "text, args, message",
  [
    (None, [], "does not exist"),
    ("def get_config(arg=''): ...", [], "has no get_sweep()"),
    ("def get_sweep(): return []", [], "gives nothing"),
    ("def get_sweep(): return [dict(lr=1), dict(lr=1)]", [], "'lr=1'] more than once"),
    ("def get_sweep(): return [dict(prompt='a,b')]", [], "contains a comma"),
    (CONFIG, ["--jobs", "0"], "--jobs: 0"),
  ],
)
def test_wrong_input_is_one_line_and_starts_nothing(place, capsys, text, args, message):
  if text is not None:
    (place / "other.py").write_text(text)
  assert run(place, *args, config="other.py") == 2
  err = capsys.readouterr().err
  assert message in err
  assert len(err.splitlines()) == 1
  assert not (place / "out").exists()


REAL = """
from configs import base

def get_config(arg=""):
  c = base.defaults()
  c.data = base.text_section(name="text_file", dir="", files="", validation=0.05)
  c.eval.every = 0
  return base.parse(c, arg)

def get_sweep():
  for mixer in ("s5", "s6"):
    yield {"mixer": mixer, "width": 8}
"""


@pytest.mark.slow
def test_real_runs_of_main(tmp_path):
  (tmp_path / "config.py").write_text(REAL)
  (tmp_path / "text.txt").write_text("some words to learn " * 500)
  config = f"{tmp_path / 'config.py'}:files={tmp_path / 'text.txt'},steps=4,length=32,batch=2"
  arguments = ["--config", config, "--out", str(tmp_path / "out"), "--jobs", "2"]
  assert sweep.main(arguments) == 1
  found = results(tmp_path)
  good, bad = found["mixer=s5,width=8"], found["mixer=s6,width=8"]
  assert good["status"] == "done"
  assert good["summary"]["step"] == 4
  assert "eval/validation/loss" in good["summary"]["metrics"]
  assert (bad["status"], bad["exit"]) == ("failed", 2)
  assert bad["error"].startswith("error: ")
  assert "s6" in bad["error"]
