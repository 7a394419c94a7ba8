"""Launchers: the exit code and output of a run come back from wherever it ran, and it can be asked to stop."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import submitit

from mistake import Mistake
from scripts import launchers

# stands in for ssh: runs what the other machine would run, by a shell, in another environment
SSH = '#!/bin/sh\necho "$3" >> "$0.hosts"\nfor last; do :; done\nexec env -i PATH="$PATH" sh -c "$last"\n'
WORK = "import os, sys; print(os.getcwd(), os.environ.get('JAX_TEST'), sys.argv[1]); sys.exit(3)"
SAVES = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print('up', flush=True)
time.sleep(30)
"""


@pytest.fixture
def ssh(tmp_path, monkeypatch):
  program = tmp_path / "bin" / "ssh"
  program.parent.mkdir()
  program.write_text(SSH)
  program.chmod(0o755)
  monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
  monkeypatch.setenv("JAX_TEST", "a b")
  return program


def start(launcher, folder: Path, *command: str):
  folder.mkdir(exist_ok=True)
  with open(folder / "log.txt", "a") as log, open(folder / "lock", "a+") as lock:
    return launcher.start(list(command), log, lock)


def wait_for(path: Path, text: str) -> None:
  for _ in range(1000):
    if path.exists() and text in path.read_text():
      return
    time.sleep(0.02)
  raise AssertionError(path)


@pytest.mark.parametrize("kind", ["local", "ssh"])
def test_code_and_output_come_back_and_a_stop_lets_it_save(tmp_path, ssh, kind):
  launcher = launchers.Local() if kind == "local" else launchers.Ssh(["one", "two"], tmp_path)
  first = start(launcher, tmp_path / "a", sys.executable, "-c", WORK, "x 'y' $z")
  second = start(launcher, tmp_path / "b", sys.executable, "-c", SAVES)
  assert first.wait() == 3
  said = (tmp_path / "a" / "log.txt").read_text()
  assert said == f"{tmp_path if kind == 'ssh' else os.getcwd()} a b x 'y' $z\n"
  wait_for(tmp_path / "b" / "log.txt", "up")
  second.stop()
  assert second.wait() == 75
  if kind == "ssh":
    assert sorted(Path(f"{ssh}.hosts").read_text().split()) == ["one", "two"]


def test_a_run_saves_when_its_connection_is_lost(tmp_path, ssh):
  process = start(
    launchers.Ssh(["one"], tmp_path),
    tmp_path / "a",
    sys.executable,
    "-c",
    SAVES.replace("exit(75)", "exit(print('saved', flush=True))"),
  )
  wait_for(tmp_path / "a" / "log.txt", "up")
  os.kill(process.process.pid, signal.SIGKILL)
  process.process.stdin.close()
  wait_for(tmp_path / "a" / "log.txt", "saved")


def test_ssh_needs_machines():
  with pytest.raises(Mistake, match="--hosts"):
    launchers.Ssh([], Path())


def test_a_job_returns_its_code_and_is_taken_up_again(tmp_path, monkeypatch):
  monkeypatch.setattr(launchers, "PATIENCE", 0.05)
  # submitit's own executor for one machine, with the same jobs and files
  launcher = launchers.Slurm(tmp_path / "slurm", {"timeout_min": 5}, cluster="local")
  process = start(launcher, tmp_path / "a", sys.executable, "-c", WORK, "x")
  number = process._job.job_id
  left = []
  monkeypatch.setattr(submitit, "SlurmJob", lambda folder, job: left.append(job) or process._job)
  again = start(launcher, tmp_path / "a", "never")
  assert left == [number]
  assert again._job is process._job
  assert process.wait() == 3
  assert (tmp_path / "a" / "log.txt").read_text().endswith("x\n")
  assert not (tmp_path / "a" / launchers.JOB).exists()


def test_an_array_is_submitted_when_all_runs_are_settled(tmp_path, monkeypatch):
  monkeypatch.setattr(launchers, "PATIENCE", 0.05)
  launcher = launchers.Slurm(tmp_path / "slurm", {}, runs=["a", "b", "c", "done"], cluster="local")
  batches, real = [], launcher._executor._internal_process_submissions
  take = lambda submissions: batches.append(len(submissions)) or real(submissions)
  monkeypatch.setattr(launcher._executor, "_internal_process_submissions", take)
  processes = []
  for name in "abc":
    processes.append(start(launcher, tmp_path / name, sys.executable, "-c", WORK, name))
    launcher.settle(name)
    # a run may be settled more than once
    launcher.settle(name)
  assert batches == []
  processes[1].stop()
  launcher.settle("done")
  assert batches == [2]
  assert [process.wait() for process in processes] == [3, -signal.SIGTERM, 3]
  assert [(tmp_path / name / "log.txt").read_text().split()[-1:] for name in "abc"] == [["a"], [], ["c"]]
  # what comes later is a job of its own
  assert start(launcher, tmp_path / "d", sys.executable, "-c", WORK, "d").wait() == 3
  assert batches == [2, 1]


def test_what_slurm_refuses_is_said_in_a_line(tmp_path, monkeypatch):
  launcher = launchers.Slurm(tmp_path / "slurm", {}, runs=["a"], cluster="local")

  def refuse(submissions):
    raise submitit.core.utils.FailedJobError("sbatch: error: invalid\n  partition specified: x")

  monkeypatch.setattr(launcher._executor, "_internal_process_submissions", refuse)
  process = start(launcher, tmp_path / "a", "never")
  launcher.settle("a")
  with pytest.raises(Mistake, match="--launcher slurm: sbatch: error: invalid partition specified: x"):
    process.wait()


def test_a_job_whose_time_is_up_saves_and_is_queued_again(tmp_path):
  task = launchers.Task([sys.executable, "-c", SAVES], tmp_path / "log.txt")
  codes = []
  thread = threading.Thread(target=lambda: codes.append(task()))
  thread.start()
  wait_for(tmp_path / "log.txt", "up")
  queued = task.checkpoint()
  thread.join(10)
  assert codes == [75]
  assert isinstance(queued, submitit.helpers.DelayedSubmission)
  assert queued.function.command == task.command


def test_what_slurm_lacks_is_a_mistake(tmp_path):
  with pytest.raises(Mistake, match="submitit|--launcher slurm"):
    launchers.Slurm(tmp_path, {"no_such_parameter": 1})
