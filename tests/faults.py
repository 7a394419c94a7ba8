"""Faults that real machines and people make, and what a run does about each.

  python -m tests.faults [NAME ...]      prints the table of docs/reliability.md; needs no root, some minutes

Each fault is a function that takes a folder of its own, does the damage and raises an AssertionError unless the outcome
is the right one. Its docstring is the table's row: the fault, then what happens. `tests/test_faults.py` runs them too.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import main as program
from tests.fault_runs import (
  TEXT,
  begun,
  ends,
  equal,
  flip,
  params,
  refused,
  run,
  started,
  trained,
  wait_for,
)
from tests.interop.released import OWN
from tests.peer_faults import PEERS

PROCESSES: dict[str, Callable[[Path], None]] = {}
FOLDERS: dict[str, Callable[[Path], None]] = {}


def in_folder(function: Callable[[Path], None]) -> Callable[[Path], None]:
  """A fault of a folder, tried in this process."""
  FOLDERS[function.__name__] = function
  return function


def in_process(function: Callable[[Path], None]) -> Callable[[Path], None]:
  """A fault of a process, which takes one of its own."""
  PROCESSES[function.__name__] = function
  return function


@in_folder
def flipped_bit(folder: Path) -> None:
  """a bit of the newest checkpoint flips | it is renamed N.bad, the one before is used, the end is the same"""
  run_folder = trained(folder)
  before = params(run_folder)
  flip(run_folder / "checkpoints" / "4")
  assert run(folder)[0] == 0
  assert (run_folder / "checkpoints" / "4.bad").is_dir()
  assert equal(params(run_folder), before)


@in_folder
def all_checkpoints_damaged(folder: Path) -> None:
  """every checkpoint is damaged | refused in one line: the run does not start again at 0"""
  run_folder = trained(folder)
  for step in (2, 4):
    flip(run_folder / "checkpoints" / str(step))
  code, error = run(folder)
  assert code == program.MISTAKE, error
  assert "had a checkpoint of step 4" in error


@in_folder
def checkpoints_missing(folder: Path) -> None:
  """the folder checkpoints/ is gone | refused in one line"""
  run_folder = trained(folder)
  shutil.rmtree(run_folder / "checkpoints")
  code, error = run(folder)
  assert code == program.MISTAKE, error
  assert "had a checkpoint of step 4, and none is left" in error


@in_folder
def checkpoint_of_another_run(folder: Path) -> None:
  """a checkpoint of another run, same shapes, is copied in | refused in one line: the manifest names its run"""
  run_folder = trained(folder)
  (folder / "other").mkdir()
  other = trained(folder / "other", sizes=",seed=1", steps=6)
  shutil.copytree(other / "checkpoints" / "6", run_folder / "checkpoints" / "6")
  code, error = run(folder, steps=6)
  assert code == program.MISTAKE, error
  assert "checkpoint 6" in error
  assert "is of another run" in error


@in_folder
def metrics_cut_short(folder: Path) -> None:
  """metrics.jsonl ends in half a row, and has rows that were never saved | those are dropped, no other is"""
  run_folder = trained(folder)
  rows = (run_folder / "metrics.jsonl").read_text()
  (run_folder / "metrics.jsonl").write_text(rows + '{"step": 5, "train/loss": 1.0}\n{"step": 6, "tra')
  assert run(folder)[0] == 0
  assert (run_folder / "metrics.jsonl").read_text() == rows


@in_folder
def config_damaged(folder: Path) -> None:
  """config.json is no JSON | refused in one line"""
  run_folder = trained(folder)
  (run_folder / "config.json").write_text("{")
  refused(folder, "config.json cannot be read")


@in_folder
def journal_damaged(folder: Path) -> None:
  """run.json is no JSON, has values of wrong types, or is a pipe | refused in one line"""
  run_folder = trained(folder)
  for text in (
    "",
    "[1]",
    "[" * 100_000,
    '{"id": 3, "saved": 4, "changes": []}',
    '{"id": "x", "saved": "4", "changes": []}',
  ):
    (run_folder / "run.json").write_text(text)
    refused(folder, "run.json cannot be read")
  (run_folder / "run.json").unlink()
  os.mkfifo(run_folder / "run.json")
  refused(folder, "run.json cannot be read", "no plain file")


@in_folder
def other_data(folder: Path) -> None:
  """the text has changed since, or data.files names another | refused in one line: the sha256 differs"""
  trained(folder)
  (folder / "text.txt").write_text(TEXT.replace("scan", "span"))
  refused(folder, "was trained on other data", "sha256")


@in_folder
def other_settings(folder: Path) -> None:
  """a setting of model, data or optimizer differs | refused in one line with both values"""
  trained(folder)
  refused(folder, "model.width is 8 there and 16 here", more=("--config.model.width=16",))
  refused(folder, "optimizer.lr", "--from-step", more=("--config.optimizer.lr=0.5",))


@in_folder
def fewer_steps_than_done(folder: Path) -> None:
  """steps=2 where 4 are done | refused in one line"""
  trained(folder)
  refused(folder, "steps=2", "has trained 4", steps=2)


@in_folder
def another_run_trains_there(folder: Path) -> None:
  """another run holds the folder | refused in one line, before anything is written"""
  import fcntl

  run_folder = trained(folder)
  with open(run_folder / "checkpoints" / "lock", "a") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    refused(folder, "in use by another run", steps=6)


@in_folder
def file_where_a_step_belongs(folder: Path) -> None:
  """a file is called checkpoints/6, and a folder has a number in another script | refused; ignored"""
  run_folder = trained(folder)
  (run_folder / "checkpoints" / "\u0668").mkdir()
  assert run(folder)[0] == 0
  (run_folder / "checkpoints" / "6").write_text("")
  refused(folder, "is a file where a checkpoint's folder belongs", steps=6)


@in_folder
def links_in_the_folder(folder: Path) -> None:
  """files of the folder are links to others | what they point to is not written"""
  run_folder = trained(folder)
  precious = folder / "precious"
  precious.write_text("precious")
  for name in ("summary.json", "loss.png", "config.json"):
    text = (run_folder / name).read_bytes()
    (run_folder / name).unlink()
    if name == "config.json":
      precious.write_bytes(text)
    (run_folder / name).symlink_to(precious)
  before = precious.read_bytes()
  assert run(folder)[0] == 0
  assert precious.read_bytes() == before
  (run_folder / "checkpoints" / "lock").unlink()
  (run_folder / "checkpoints" / "lock").symlink_to(precious)
  assert run(folder)[0] == program.MISTAKE
  assert precious.read_bytes() == before


@in_folder
def manifest_names_a_device(folder: Path) -> None:
  """a manifest names a device, or a file outside of its folder | the step counts as damaged; nothing is read"""
  run_folder = trained(folder)
  for name in ("/dev/zero", "../../../text.txt"):
    path = run_folder / "checkpoints" / "4" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = {"size": 1, "sha256": ""}
    path.write_text(json.dumps(manifest))
    assert run(folder)[0] == 0
    bad = [path.name for path in (run_folder / "checkpoints").glob("4.bad*")]
    assert bad, "the step was taken"


@in_folder
def debris_is_bounded(folder: Path) -> None:
  """the newest checkpoint is damaged again and again | at most four damaged ones stay"""
  run_folder = trained(folder)
  for _ in range(5):
    flip(run_folder / "checkpoints" / "4")
    assert run(folder)[0] == 0
  assert len(list((run_folder / "checkpoints").glob("*.bad*"))) <= 4


@in_folder
def loss_not_finite(folder: Path) -> None:
  """the loss is not finite | code 3, nothing after it is saved; --from-step N goes on with other optimizer settings"""
  code, error = run(folder, sizes=",lr=1e30,schedule=constant,clip=0.0,save.every=1", steps=4)
  assert code == program.NOT_FINITE, error
  saved = [int(p.name) for p in (folder / "run" / "checkpoints").iterdir() if p.name.isdecimal()]
  more = (f"--from-step={min(saved)}", "--config.optimizer.lr=0.0", "--config.optimizer.clip=1.0")
  code, error = run(folder, *more, sizes=",schedule=constant,save.every=1", steps=2)
  assert code in (0, program.NOT_FINITE), error
  note = json.loads((folder / "run" / "run.json").read_text())["changes"][-1]
  assert note["step"] == min(saved)
  assert set(note["keys"]) == {"optimizer.lr", "optimizer.clip"}


@in_folder
def nothing_to_score(folder: Path) -> None:
  """save.best, or an evaluation set, names nothing that can be scored | refused before the folder is made"""
  code, error = run(folder, sizes=",save.best=eval/validation/f1")
  assert code == program.MISTAKE, error
  assert not (folder / "run").exists()


@in_process
def signal_in_imports(folder: Path) -> None:
  """SIGTERM or Ctrl-C while libraries are imported | code 75 or 130 in one line, no traceback"""
  for number, code in ((signal.SIGTERM, program.STOPPED), (signal.SIGINT, program.INTERRUPTED)):
    with started(folder) as process:
      time.sleep(1.0)
      process.send_signal(number)
      out = ends(process, code)
      assert len(out.strip().splitlines()) == 1, out


@in_process
def signals_in_training(folder: Path) -> None:
  """SIGTERM, SIGHUP or SIGUSR1 while it trains | code 75, saved; the same command goes on"""
  for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    own = folder / number.name
    own.mkdir()
    with started(own, steps=100_000, sizes=",log_every=0,eval.every=0,save.keep=2") as process:
      wait_for(own / "run" / "checkpoints" / "2" / "manifest.json", process)
      process.send_signal(number)
      assert "saved; the same command goes on" in ends(process, program.STOPPED)
    assert json.loads((own / "run" / "summary.json").read_text())["status"] == "stopped"


@in_process
def killed(folder: Path) -> None:
  """kill -9 after a save | the same command ends with the same bits as a run that nothing disturbed"""
  with started(folder, steps=40, sizes=",save.keep=0") as process:
    wait_for(folder / "run" / "checkpoints" / "4" / "manifest.json", process)
    process.kill()
  whole = folder / "whole"
  whole.mkdir()
  # processes of their own, too: this one may compile programs another way
  for place in (folder, whole):
    with started(place, steps=40, sizes=",save.keep=0") as process:
      ends(process, 0)
  assert equal(params(folder / "run"), params(whole / "run")), "the run went on with other numbers"


@in_process
def disk_full(folder: Path) -> None:
  """the disk is full when a checkpoint is written | code 2 and the reason in one line; with room, the run goes on"""
  with started(folder, limit=20_000, sizes=",width=32") as process:
    out = ends(process, program.MISTAKE)
    assert "error: saving a checkpoint" in out.strip().splitlines()[-1]
    assert "too large" in out.strip().splitlines()[-1]
  assert json.loads((folder / "run" / "summary.json").read_text())["status"] == "failed"
  assert run(folder, sizes=",width=32")[0] == 0
  assert json.loads((folder / "run" / "summary.json").read_text())["status"] == "done"


@in_process
def conversion_stopped(folder: Path) -> None:
  """interop.hf load is stopped or killed (kill -9) | nothing has the run's name; the next one tidies up"""
  arguments = ["-m", "interop.hf", "load", str(OWN / "gpt2"), "--workdir", str(folder / "run")]
  for number, code in ((signal.SIGTERM, program.STOPPED), (signal.SIGKILL, -signal.SIGKILL)):
    with begun(arguments) as process:
      while not list(folder.glob(".run.*.partial")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
      process.send_signal(number)
      out = ends(process, code)
    assert not (folder / "run").exists()
    assert bool(list(folder.iterdir())) == (number == signal.SIGKILL), out
  with begun(arguments) as process:
    ends(process, 0)
  assert [path.name for path in folder.iterdir()] == ["run"]


@in_process
def started_twice(folder: Path) -> None:
  """two runs are started in one new folder at once | one trains, the other is refused; the folder stays usable"""
  with started(folder, steps=200) as one, started(folder, steps=200) as two:
    codes = {one.wait(timeout=300), two.wait(timeout=300)}
  assert 0 in codes
  assert codes <= {0, program.MISTAKE}
  assert run(folder, steps=200)[0] == 0


PROCESSES |= PEERS


def main() -> int:
  """Prints the table; the exit code is 1 where something was lost."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  faults = FOLDERS | PROCESSES
  parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(faults)}; all by default")
  lost = 0
  print("| fault | what happens | seconds | |\n|---|---|---|---|", flush=True)
  for name in parser.parse_args().names or faults:
    fault, _, outcome = (faults[name].__doc__ or name).partition(" | ")
    began, verdict = time.monotonic(), "as it should"
    with tempfile.TemporaryDirectory() as folder:
      try:
        faults[name](Path(folder))
      except Exception as error:
        lost, verdict = lost + 1, f"**LOST**: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    print(f"| {fault} | {outcome} | {time.monotonic() - began:.0f} | {verdict} |", flush=True)
  return 1 if lost else 0


if __name__ == "__main__":
  sys.exit(main())
