"""Sweeps: every setting runs once, failures are told and stop nothing, and the same command goes on where it was."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from scripts import launchers, plan, sweep

CONFIG = """
from configs import base

def get_config(arg=""):
  c = base.defaults()
  c.steps = 10
  return base.parse(c, arg)

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
if "--hang" in sys.argv:
  (workdir / "started").touch()
  while not (pathlib.Path(__file__).parent / "go on").exists():
    time.sleep(0.01)
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


def lines(place: Path) -> list[dict]:
  return [json.loads(line) for line in (place / "out" / "results.jsonl").read_text().splitlines()]


def results(place: Path) -> dict[str, dict]:
  return {line["name"]: line for line in lines(place)}


def calls(place: Path, name: str) -> list[list[str]]:
  path = place / "out" / name / "calls"
  return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


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
  said = captured.out.splitlines()
  assert sorted(line.split()[0] for line in said) == ["1/4", "2/4", "3/4", "4/4"]
  assert any(re.fullmatch(r"./4 mixer=s5,lr=0.01: done in \d+ s", line) for line in said)
  assert sum(line.endswith(" s, main: no mixer is called 'broken'") for line in said) == 2


def test_a_file_where_a_folder_belongs_fails_that_run_alone(place, capsys):
  (place / "out").mkdir()
  (place / "out" / "mixer=s5,lr=0.01").touch()
  assert run(place) == 1
  found = results(place)
  assert found["mixer=s5,lr=0.01"]["status"] == "failed"
  assert "its folder cannot be used" in found["mixer=s5,lr=0.01"]["error"]
  assert found["mixer=s5,lr=0.001"]["status"] == "done"
  (place / "out" / "mixer=s5,lr=0.01").unlink()
  run(place)
  assert results(place)["mixer=s5,lr=0.01"]["status"] == "done"


def test_a_line_on_the_terminal_has_the_accuracy_or_else_the_loss():
  values = {"train/loss": 1.0, "eval/longer/accuracy": 0.1, "eval/validation/loss": 2.0}
  result = {"name": "mixer=s5", "status": "done", "seconds": 8.2, "summary": {"metrics": values}}
  assert sweep.outcome(result) == "mixer=s5: done in 8 s, longer accuracy 0.1"
  values["eval/validation/accuracy"] = 0.16412
  assert sweep.outcome(result) == "mixer=s5: done in 8 s, validation accuracy 0.164"
  result["summary"] = {"metrics": {"eval/validation/loss": 2.0, "eval/validation/accuracy": None}}
  assert sweep.outcome(result) == "mixer=s5: done in 8 s, validation loss 2"


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


def change(place: Path, old: str, new: str) -> None:
  text = (place / "config.py").read_text()
  assert old in text
  (place / "config.py").write_text(text.replace(old, new))


@pytest.mark.parametrize("what", ["config", "argument", "flags"])
def test_a_run_is_what_it_ran_and_not_its_name(place, capsys, what):
  change(place, '("s5", "broken")', '("s5",)')
  assert run(place) == 0
  if what == "config":
    change(place, "c.steps = 10", "c.steps = 20")
  config = "config.py:steps=20" if what == "argument" else "config.py"
  flags = ["--", "--config.steps=20"] if what == "flags" else []
  capsys.readouterr()
  assert run(place, *flags, config=config) == 0
  assert "2 lines of " in capsys.readouterr().err
  names = [line["name"] for line in lines(place)]
  assert names == 2 * ["mixer=s5,lr=0.01", "mixer=s5,lr=0.001"]
  assert len({line["digest"] for line in lines(place)}) == len({line["folder"] for line in lines(place)}) == 4
  assert [line["folder"] == line["name"] for line in lines(place)] == [True, True, False, False]
  assert len({line["origin"] for line in lines(place)}) == 2
  # each is done, and neither is run again
  assert run(place, *flags, config=config) == 0
  assert all(len(calls(place, line["folder"])) == 1 for line in lines(place))
  assert (lines(place)[2]["argument"], lines(place)[2]["flags"]) == (config.partition(":")[2], flags[1:])


def test_an_edit_that_changes_no_config_changes_no_run(place):
  run(place)
  change(place, "c.steps = 10", "c.steps = 2 * 5  # the same")
  run(place)
  assert len(lines(place)) == 4
  assert len(calls(place, "mixer=s5,lr=0.01")) == 1


def test_results_of_older_sweeps_still_load(place):
  run(place)
  config = json.loads(runpy.run_path(str(place / "config.py"))["get_config"]("mixer=s5,lr=0.01").to_json())
  older = [{key: line[key] for key in ("name", "overrides", "status", "summary")} for line in lines(place)]
  (place / "out" / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in older))
  for folder in (place / "out").iterdir():
    (folder / sweep.DIGEST).unlink(missing_ok=True) if folder.is_dir() else None
  # only one of the folders is known to hold the same run
  (place / "out" / "mixer=s5,lr=0.01" / "config.json").write_text(json.dumps(config))
  run(place)
  assert len(calls(place, "mixer=s5,lr=0.01")) == 1
  folders = {line["folder"] for line in lines(place) if line["name"] == "mixer=s5,lr=0.001"}
  assert len(folders) == 2
  assert all(len(calls(place, folder)) == 1 for folder in folders)


@pytest.mark.parametrize("broken", ['{"name": "x", "over', "", "[1]", "null", '{"name": 3}', "\x00\x00"])
def test_a_line_cut_short_is_said_in_one_line_and_repaired(place, capsys, broken):
  run(place)
  path = place / "out" / "results.jsonl"
  whole = path.read_text().splitlines()
  assert len(whole) == 4
  first = json.loads(whole[0])["folder"]
  path.write_text("\n".join([broken, *whole[1:]]))
  capsys.readouterr()
  run(place)
  said = [line for line in capsys.readouterr().err.splitlines() if "line 1 is cut short" in line]
  assert len(said) == bool(broken)
  assert len(calls(place, first)) == 2
  assert len(lines(place)) == 4


def test_names_too_long_for_a_file_system_are_cut(place):
  (place / "long.py").write_text(
    CONFIG.partition("def get_sweep")[0]
    + "def get_sweep():\n  for end in 'ab': yield {'generate.prompt': 'x' * 400 + end, 'mixer': 's5'}\n"
  )
  assert run(place, config="long.py") == 0
  names = [line["folder"] for line in lines(place)]
  assert len(set(names)) == 2
  assert max(map(len, names)) < 230
  assert run(place, config="long.py") == 0
  assert all(len(calls(place, name)) == 1 for name in names)


def start(place: Path, *args: str) -> subprocess.Popen:
  root = Path(__file__).parents[2]
  script = f"import pathlib, sys; sys.path.insert(0, {str(root)!r}); from scripts import sweep; "
  script += f"sweep.ROOT = pathlib.Path({str(place)!r}); sys.exit(sweep.main())"
  command = [sys.executable, "-c", script, "--config", str(place / "config.py"), "--out", str(place / "out")]
  return subprocess.Popen([*command, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen) -> None:
  while not path.exists() and process.poll() is None:
    time.sleep(0.02)


def test_a_run_that_outlives_a_killed_sweep_is_waited_for(place):
  change(place, '("s5", "broken")', '("s5",)')
  folder = place / "out" / "mixer=s5,lr=0.01"
  killed = start(place, "--", "--hang")
  wait_for(folder / "started", killed)
  killed.kill()
  killed.communicate(timeout=30)
  again = start(place, "--", "--hang")
  line = again.stderr.readline()
  assert "mixer=s5,lr=0.01 still runs as process" in line
  orphan = int(line.partition("process ")[2].partition(",")[0])
  os.kill(orphan, 0)
  assert not (folder / "summary.json").exists()
  (place / "go on").touch()
  _, err = again.communicate(timeout=60)
  assert again.returncode == 0, err
  assert {line["status"] for line in lines(place)} == {"done"}
  assert len(calls(place, folder.name)) == 2


def test_two_sweeps_do_not_share_a_folder(place):
  folder = place / "out" / "mixer=s5,lr=0.01"
  first = start(place, "--", "slow")
  wait_for(folder / "started", first)
  second = start(place)
  _, err = second.communicate(timeout=60)
  assert (second.returncode, len(err.splitlines())) == (2, 1)
  assert "another sweep is running" in err
  first.terminate()
  first.communicate(timeout=60)
  assert first.returncode == 75


def test_a_run_that_was_killed_says_so(place):
  change(place, '("s5", "broken")', '("s5",)')
  (place / "main.py").write_text("import os, signal; print('step 7', flush=True); os.kill(os.getpid(), signal.SIGKILL)")
  assert run(place) == 1
  assert {line["error"] for line in lines(place)} == {"killed by SIGKILL; its last line: step 7"}
  # a cluster stopped it, and it saved
  (place / "main.py").write_text("raise SystemExit(75)")
  assert run(place) == 75
  assert {line["status"] for line in lines(place)} == {"interrupted"}


def test_a_reader_that_goes_away_does_not_end_the_sweep(place):
  process = start(place)
  process.stdout.close()
  process.stdout = None
  _, err = process.communicate(timeout=60)
  assert process.returncode == 1, err
  assert "Traceback" not in err
  assert len(lines(place)) == 4


def test_tuples_keep_their_commas():
  setting = {"data.stages": ((0, 1), (5, 2)), "lr": 1e-3}
  assert plan.argument(setting) == "data.stages=((0, 1), (5, 2)),lr=0.001"
  assert plan.run_name(setting) == "data.stages=__0,_1_,__5,_2__,lr=0.001"
  assert plan.argument({"generate.prompt": "a, b", "lr": 1}) == 'generate.prompt="a, b",lr=1'


def test_interrupted_sweep_lets_its_runs_save_and_starts_no_more(place):
  process = start(place, "--", "slow")
  started = place / "out" / "mixer=s5,lr=0.01" / "started"
  wait_for(started, process)
  os.kill(process.pid, signal.SIGTERM)
  _, err = process.communicate(timeout=30)
  assert process.returncode == 75, err
  assert [(r["name"], r["status"], r["exit"]) for r in results(place).values()] == [
    ("mixer=s5,lr=0.01", "interrupted", 75)
  ]
  (place / "main.py").write_text(MAIN.replace("time.sleep(60)", ""))
  assert run(place, "--", "slow") == 1
  assert len(calls(place, "mixer=s5,lr=0.01")) == 2
  assert results(place)["mixer=s5,lr=0.01"]["status"] == "done"


def test_a_second_signal_in_the_midst_of_the_first_ones_handling_is_heard(tmp_path):
  # Ctrl-C and SIGTERM at once, as `timeout` hands on what it gets
  told = sweep.Sweep(tmp_path, [], "", [], launchers.Local())
  heard = []

  class Running:
    def stop(self):
      heard.append("stop")
      if len(heard) == 1:
        told.stop()

  told._running.add(Running())
  handler = threading.Thread(target=told.stop, daemon=True)
  handler.start()
  handler.join(10)
  assert not handler.is_alive(), "the second handler waits for the first"
  assert heard == ["stop", "stop"]


@pytest.mark.parametrize(
  "text, args, message",
  [
    (None, [], "does not exist"),
    ("def get_config(arg=''): ...", [], "has no get_sweep()"),
    ("def get_sweep(): return []", [], "gives nothing"),
    ("def get_sweep(): return [dict(lr=1), dict(lr=1)]", [], "'lr=1'] more than once"),
    ("def get_sweep(): return [1 / 0]", [], "ZeroDivisionError: division by zero"),
    ("def get_sweep(:", [], "SyntaxError"),
    (CONFIG, ["--grid", "mixer=s5", "seed=0,0.0"], "'mixer=s5,seed=0' and 'mixer=s5,seed=0.0' are the same run"),
    (CONFIG, ["--", "--config.optimizer.lr=1"], "--config.optimizer.lr=1 after -- sets optimizer.lr for all runs"),
    (CONFIG, ["--jobs", "0"], "--jobs: 0"),
  ],
)
def test_wrong_input_is_one_line_and_starts_nothing(place, mistaken, text, args, message):
  if text is not None:
    (place / "other.py").write_text(text)
  mistaken(lambda args: run(place, *args, config="other.py"), args, message)
  assert not (place / "out").exists()


REAL = """
from configs import base

def get_config(arg=""):
  c = base.defaults()
  c.data = base.text_section(name="text_file", dir="", files="", key="text", validation=0.05)
  c.eval.every = 0
  return base.parse(c, arg)

def get_sweep():
  for mixer in ("s5", "s6"):
    yield {"mixer": mixer, "width": 8}
"""


@pytest.mark.parametrize(
  "grid, message",
  [
    (["mixer=gated_em,mamba"], "mixer=gated_em cannot run: no mixer is called 'gated_em'"),
    (["lrr=1,2"], "lrr=1 cannot run: config has no key 'lrr' (did you mean 'lr'?)"),
    (["mixer=mamba", "steps=10", "warmup=20"], "optimizer.warmup=20 is not below steps=10"),
    (["mixer=mamba", "m.stat=3"], "mixer 'mamba' has no field 'stat' (did you mean 'state'?)"),
    (["lr=1e-3,-1"], "lr=-1"),
  ],
)
def test_a_grid_with_a_mistake_starts_nothing(tmp_path, mistaken, grid, message):
  (tmp_path / "config.py").write_text(REAL)
  command = ["--config", str(tmp_path / "config.py"), "--out", str(tmp_path / "out"), "--grid", *grid]
  mistaken(sweep.main, command, message)
  assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_real_runs_of_main(tmp_path):
  (tmp_path / "config.py").write_text(REAL)
  (tmp_path / "text.txt").write_text("some words to learn " * 500)
  config = f"{tmp_path / 'config.py'}:files={tmp_path / 'text.txt'},steps=4,warmup=1,length=32,batch=2"
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
