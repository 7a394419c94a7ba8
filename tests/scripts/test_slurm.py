"""SLURM itself, as a cluster of this machine: a job of two processes, its time limit, and the runs of a sweep."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mistake import Mistake
from scripts import launchers
from scripts.launch import main as launch
from scripts.launch import one_node
from tests.fault_runs import SIZES, TEXT

ROOT = Path(__file__).parents[2]
SECONDS = 1800
installed = pytest.mark.skipif(bool(one_node.missing()), reason=f"{', '.join(one_node.missing())} not installed")


def test_programs_that_are_missing_are_named(tmp_path, monkeypatch):
  monkeypatch.setattr(one_node, "find", lambda program: None if program == "slurmd" else program)
  with pytest.raises(Mistake, match="slurmd not installed; apt-get install"):
    one_node.start(tmp_path)
  assert one_node.main(["start", str(tmp_path)]) == 2
  assert not list(tmp_path.iterdir())


def test_only_a_daemon_that_lives_counts(tmp_path):
  (tmp_path / "munged.pid").write_text(str(os.getpid()))
  assert one_node._number(tmp_path, "munged") is None
  (tmp_path / f"{Path(sys.executable).name}.pid").write_text(str(os.getpid()))
  assert one_node._number(tmp_path, Path(sys.executable).name) == os.getpid()
  # there is nothing to stop
  one_node.stop(tmp_path)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  # the job runs ./dev, which would make an environment
  monkeypatch.setenv("VENV", os.environ.get("VENV", str(Path(sys.executable).parents[1])))
  with one_node.running(tmp_path / "slurm"):
    yield tmp_path


def wait_for(done, what):
  end = time.monotonic() + SECONDS
  while not done():
    assert time.monotonic() < end, what()
    time.sleep(0.5)


# stands in for ./dev: two tasks that save when they are warned, one of them slower, and are done the second time
TASK = """#!/bin/bash
echo "task $SLURM_PROCID starts"
[ "${SLURM_RESTART_COUNT:-0}" = 0 ] || exit 0
trap 'sleep $((4 - 4 * SLURM_PROCID)); echo "task $SLURM_PROCID saves"; exit 75' USR1
while :; do sleep 0.2; done
"""


@installed
@pytest.mark.slow
def test_a_job_whose_time_is_nearly_up_saves_on_all_tasks_and_is_queued_again(cluster):
  (cluster / "dev").write_text(TASK)
  (cluster / "dev").chmod(0o755)
  arguments = ["slurm", "--name=two", "--tasks=2", "--time=1", "--warning=30", "--restarts=0"]
  assert launch.main([*arguments, f"--folder={cluster}", f"--out={cluster}", "--", "--workdir=w"]) == 0
  said = lambda: "".join(path.read_text() for path in cluster.glob("two-*.txt"))
  wait_for(lambda: all(said().count(f"task {i} starts") == 2 for i in (0, 1)), said)
  assert all(said().count(f"task {i} saves") == 1 for i in (0, 1)), said()
  assert "Terminat" not in said()


@installed
@pytest.mark.slow
def test_a_job_of_two_processes_saves_when_warned_and_goes_on(cluster):
  (cluster / "text.txt").write_text(TEXT)
  config = f"configs/text.py:files={cluster / 'text.txt'},{SIZES},steps=10000000,save.every=2,save.keep=2"
  flags = ["--", f"--config={config}", f"--workdir={cluster / 'run'}", "--config.log_every=0", "--config.eval.every=0"]
  arguments = ["slurm", "--name=two", "--tasks=2", "--time=60", "--restarts=0", f"--out={cluster}"]
  assert launch.main([*arguments, *flags]) == 0
  said = lambda: "".join(path.read_text() for path in cluster.glob("two-*.txt"))
  saved = lambda: list((cluster / "run" / "checkpoints").glob("*/manifest.json"))
  queue = lambda: subprocess.run(["squeue"], capture_output=True, text=True).stdout
  about = lambda: f"{queue()}\n{said()[-3000:]}"
  wait_for(saved, about)
  # what SLURM does when the time is nearly up
  subprocess.run(["scancel", "--signal=USR1", "--name=two"], check=True)
  wait_for(lambda: said().count("stopped at step") == 2, about)
  steps = {part.split(",")[0] for part in said().split("stopped at step ")[1:]}
  assert len(steps) == 1, said()
  wait_for(lambda: f"going on at step {steps.pop() if steps else ''}" in said(), about)
  subprocess.run(["scancel", "--name=two"], check=True)
  wait_for(lambda: "two" not in queue(), about)


@installed
@pytest.mark.slow
def test_runs_of_a_sweep_are_an_array_and_cancelled_jobs_end(cluster):
  (cluster / "text.txt").write_text(TEXT)
  config = f"configs/text.py:files={cluster / 'text.txt'},{SIZES},steps=2,save.every=2"
  command = ["scripts/sweep.py", "--config", config, "--out", str(cluster / "sweep"), "--grid", "lr=1e-3,2e-3,4e-3"]
  command += ["--launcher", "slurm", "--jobs", "2", "--slurm", "timeout_min=30"]
  done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
  assert done.returncode == 0, done.stderr
  assert "3 of 3 runs done" in done.stderr
  scripts = list((cluster / "sweep" / "slurm").glob("*_submission.sh"))
  assert len(scripts) == 1
  assert "#SBATCH --array=0-2%2\n" in scripts[0].read_text()
  assert not list((cluster / "sweep").glob(f"*/{launchers.JOB}"))
  launcher = launchers.Slurm(cluster / "own", {"timeout_min": 5})
  with open(cluster / "log.txt", "a") as log, open(cluster / "lock", "a+") as lock:
    process = launcher.start(["sleep", "600"], log, lock)
    wait_for(lambda: (cluster / "log.txt").exists(), lambda: "it does not run")
    process.stop()
    assert process.wait() == 1
