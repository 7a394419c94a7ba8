"""Runs that are killed, stopped or damaged, and then started by the same command, end with the same bits.

Text with the recurrent state carried from batch to batch, so that everything a checkpoint holds is needed.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

ROOT = Path(__file__).parents[1]
STEPS, EVERY = 120, 20
SIZES = (
  "width=8,depth=1,length=32,batch=2,stateful=true,optimizer.ema=0.9,eval.every=40,log_every=10,save.keep=3,"
  "generate.tokens=0"
)
SECONDS = 240
STOPPED = 75

# runs main.py and kills it at a moment that waiting from outside would seldom hit
DYING = """
import os, runpy, shutil, signal, sys, threading
from pathlib import Path
where, step, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
sys.argv = sys.argv[4:]
from training import checkpoint, manifest
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write, replace = manifest.write, os.replace
def watch():
  while not any(name.startswith(step + ".") for name in os.listdir(folder)):
    pass
  die()
if where == "writing":
  folder.mkdir(parents=True)
  threading.Thread(target=watch, daemon=True).start()
elif where == "before the manifest":
  manifest.write = lambda path, n, run: die() if str(n) == step else write(path, n, run)
elif where == "within the manifest":
  os.replace = lambda a, b: die() if Path(b) == folder / step / manifest.NAME else replace(a, b)
elif where == "deleting":
  shutil.rmtree = lambda path, *_, **__: die() if Path(path).name == step + ".old" else None
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
  path = tmp_path_factory.mktemp("text") / "text.txt"
  words = random.Random(0).choices(["state", "space", "model", "scan", "the", "of", "a"], k=20000)
  path.write_text(" ".join(words))
  return path


def arguments(text: Path, workdir: Path) -> list[str]:
  config = f"configs/text.py:files={text},steps={STEPS},save.every={EVERY},{SIZES}"
  return ["main.py", "--config", config, "--workdir", str(workdir)]


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen]:
  process = subprocess.Popen(
    [sys.executable, *command], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
  )
  try:
    yield process
  finally:
    process.kill()
    process.wait()


def finish(process: subprocess.Popen, code: int = 0) -> str:
  out, _ = process.communicate(timeout=SECONDS)
  assert process.returncode == code, out[-4000:]
  return out


def run(text: Path, workdir: Path) -> str:
  with running(arguments(text, workdir)) as process:
    return finish(process)


@pytest.fixture(scope="module")
def whole(text, tmp_path_factory) -> Iterator[Callable[[], Path]]:
  """A run that nothing disturbs, under way while the first test does the same with trouble; call it for its folder."""
  workdir = tmp_path_factory.mktemp("whole") / "run"
  with running(arguments(text, workdir)) as process:

    def wait() -> Path:
      if process.returncode is None:
        finish(process)
      return workdir

    yield wait


def wait_for(path: Path, process: subprocess.Popen) -> None:
  end = time.monotonic() + SECONDS
  while not path.exists():
    assert process.poll() is None, f"it ended by itself: {process.communicate()[0][-4000:]}"
    assert time.monotonic() < end, f"{path} did not appear"
    time.sleep(0.002)


def saved(workdir: Path, step: int) -> Path:
  return workdir / "checkpoints" / str(step) / "manifest.json"


def kill_after(step: int, text: Path, workdir: Path, number: int = signal.SIGKILL) -> str:
  with running(arguments(text, workdir)) as process:
    wait_for(saved(workdir, step), process)
    process.send_signal(number)
    return finish(process, -number if number == signal.SIGKILL else STOPPED)


def everything(workdir: Path) -> dict:
  """All that the last checkpoint holds, but for the clock."""
  step = workdir / "checkpoints" / str(STEPS)
  state = ocp.StandardCheckpointer().restore(step / "state")
  data, extra = (json.loads((step / item / "metadata").read_text()) for item in ("data", "extra"))
  return {"state": jax.tree.map(np.asarray, state), "data": data, "best": extra["best"]}


def rows(workdir: Path) -> list[dict]:
  """The rows of metrics, but for speeds."""
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return [
    {key: value for key, value in line.items() if not key.endswith(("_per_s", "mfu", "peak_bytes"))} for line in lines
  ]


def assert_same_end(workdir: Path, whole: Path, *, kind: str = "") -> None:
  """In every bit of the last checkpoint, and in the rows of metrics of a kind."""
  assert json.loads((workdir / "summary.json").read_text())["status"] == "done"
  ours, theirs = everything(workdir), everything(whole)
  assert jax.tree.structure(ours) == jax.tree.structure(theirs)
  assert len(jax.tree.leaves(ours["state"])) > 30, "parameters, moments, averages and the carried state"
  differ = [k for k, x in ours["state"].items() if x.tobytes() != theirs["state"][k].tobytes()]
  assert not differ, f"these differ: {differ}"
  assert ours["data"] == theirs["data"]
  assert ours["best"] == theirs["best"]
  of_kind = lambda folder: [row for row in rows(folder) if any(key.startswith(kind) for key in row)]
  assert of_kind(workdir) == of_kind(whole)


def newest(workdir: Path) -> int:
  return max(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdecimal())


def largest(step: Path) -> Path:
  return max((p for p in (step / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(step: Path) -> None:
  raw = bytearray(largest(step).read_bytes())
  raw[len(raw) // 2] ^= 1
  largest(step).write_bytes(raw)


def empty(step: Path) -> None:
  for path in step.iterdir():
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_killed_and_damaged_run_ends_as_if_nothing_had_happened(text, whole, tmp_path):
  kill_after(3 * EVERY, text, tmp_path)
  # the run may have saved another step, or have been killed while it did
  bad = max(n for n in range(EVERY, STEPS, EVERY) if saved(tmp_path, n).exists())
  flip(tmp_path / "checkpoints" / str(bad))
  out = run(text, tmp_path)
  assert f"checkpoints/{bad} is damaged: file state/" in out
  assert f"It is now {bad}.bad, nothing was deleted" in out
  assert f"going on at step {bad - EVERY} of {STEPS}" in out
  assert (tmp_path / "checkpoints" / f"{bad}.bad" / "manifest.json").is_file()
  assert_same_end(tmp_path, whole())


@pytest.mark.slow
@pytest.mark.parametrize(
  "damage, reason",
  [
    (flip, "has changed since it was written"),
    (lambda step: os.truncate(largest(step), 100), "has 100 bytes"),
    (empty, "its folder is empty"),
  ],
  ids=["flipped bit", "truncated", "emptied"],
)
def test_damaged_step_is_passed_saved_again_and_resumed_from(text, whole, tmp_path, damage, reason):
  kill_after(3 * EVERY, text, tmp_path)
  bad = max(n for n in range(EVERY, STEPS, EVERY) if saved(tmp_path, n).exists())
  folder = tmp_path / "checkpoints" / str(bad)
  damage(folder)
  left = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
  with running(arguments(text, tmp_path)) as process:
    # first it goes away, then it is there again
    wait_for(folder.with_name(f"{bad}.bad"), process)
    wait_for(saved(tmp_path, bad), process)
    process.kill()
    out = finish(process, -signal.SIGKILL)
  assert reason in out
  moved = folder.with_name(f"{bad}.bad")
  assert {p.relative_to(moved): p.read_bytes() for p in moved.rglob("*") if p.is_file()} == left
  out = run(text, tmp_path)
  assert "going on at step" in out
  assert int(out.split("going on at step ")[1].split()[0]) >= bad
  assert_same_end(tmp_path, whole())


@pytest.mark.slow
@pytest.mark.parametrize("where", ["writing", "before the manifest", "within the manifest", "deleting"])
def test_killed_in_the_middle_of_a_save(text, whole, tmp_path, where):
  # the step that is saved is 80; what is deleted for it is 20
  step = EVERY if where == "deleting" else 4 * EVERY
  folder = tmp_path / "checkpoints"
  with running(["-c", DYING, where, str(step), str(folder), *arguments(text, tmp_path)]) as process:
    finish(process, -signal.SIGKILL)
  assert not saved(tmp_path, step).exists()
  out = run(text, tmp_path)
  assert f"going on at step {4 * EVERY if where == 'deleting' else 3 * EVERY} of {STEPS}" in out
  names = {p.name for p in folder.iterdir()} | {p.name for p in (folder / "trash").iterdir()}
  left = {"writing": "80.orbax-checkpoint-tmp", "deleting": "20.old"}.get(where, "80.bad")
  assert any(name.startswith(left) for name in names), names
  assert_same_end(tmp_path, whole())


@pytest.mark.slow
def test_sigterm_saves_at_once_and_says_so(text, whole, tmp_path):
  out = kill_after(EVERY, text, tmp_path, signal.SIGTERM)
  step = newest(tmp_path)
  assert f"stopped at step {step}, saved; the same command goes on" in out
  assert saved(tmp_path, step).is_file()
  assert json.loads((tmp_path / "summary.json").read_text())["status"] == "stopped"
  assert f"going on at step {step} of {STEPS}" in run(text, tmp_path)
  # it stopped between two rows of training metrics: the next one averages over fewer steps
  assert_same_end(tmp_path, whole(), kind="eval/")


@pytest.mark.slow
def test_killed_soon_after_every_save(text, whole, tmp_path):
  draw, kills = random.Random(1), 0
  for step in range(EVERY, STEPS, EVERY):
    if kills and newest(tmp_path) >= step:
      continue
    with running(arguments(text, tmp_path)) as process:
      wait_for(saved(tmp_path, step), process)
      time.sleep(draw.uniform(0, 0.1))
      process.kill()
      finish(process, -signal.SIGKILL)
      kills += 1
  assert kills > 1
  run(text, tmp_path)
  assert_same_end(tmp_path, whole())
