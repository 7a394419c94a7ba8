"""Runs of several processes on this machine, killed one by one, under the supervisor of `./dev launch local`.

Slow, all of it: a process takes seconds to start. tests/faults.py has what happens to two without a supervisor.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import fault_runs

SECONDS = 1800
pytestmark = pytest.mark.slow


class Several:
  """A supervised run in a folder, with a batch that up to four processes share."""

  def __init__(self, folder: Path, count: int, *launch: str, steps: int = 100_000, log_every: int = 0):
    self.folder, self.count = folder, count
    self.steps, self.log_every = steps, log_every
    self.launch = [f"--processes={count}", *launch]

  @property
  def command(self) -> list[str]:
    sizes = f",batch=4,log_every={self.log_every},eval.every=0,save.keep=0,schedule=constant"
    flags = fault_runs.command(self.folder, "--patience=30", steps=self.steps, sizes=sizes)[1:]
    head = ["-m", "scripts.launch.main", "local", "--name=x", f"--out={self.folder}", "--grace=60", *self.launch]
    return [*head, "--", *flags]

  @contextlib.contextmanager
  def running(self) -> Iterator[subprocess.Popen]:
    with fault_runs.begun(self.command) as supervisor:
      try:
        yield supervisor
      finally:
        for number in range(self.count):
          with contextlib.suppress(OSError, ValueError):
            os.kill(self.number(number), signal.SIGKILL)

  def number(self, process: int) -> int:
    return int((self.folder / f"x-{process}.pid").read_text())

  def said(self, process: int) -> str:
    path = self.folder / f"x-{process}.txt"
    return path.read_text() if path.exists() else ""

  def waits_for_a_save(self, supervisor: subprocess.Popen, after: int = 0) -> int:
    end = time.monotonic() + SECONDS
    while (step := fault_runs.saved(self.folder)) <= after:
      assert supervisor.poll() is None, supervisor.communicate()[0] + self.said(0)[-3000:]
      assert time.monotonic() < end, self.said(0)[-3000:]
      time.sleep(0.1)
    return step

  def ends(self, supervisor: subprocess.Popen, code: int) -> str:
    out, _ = supervisor.communicate(timeout=SECONDS)
    assert supervisor.returncode == code, out + "".join(self.said(i)[-2000:] for i in range(self.count))
    return out


def test_each_one_killed_in_turn_starts_all_again_at_the_last_save(tmp_path):
  count = 2
  several = Several(tmp_path, count, f"--restarts={count}")
  with several.running() as supervisor:
    for killed in range(count):
      step = several.waits_for_a_save(supervisor, after=fault_runs.saved(tmp_path))
      os.kill(several.number(killed), signal.SIGKILL)
      while several.said(0).count("going on at step") < killed + 1:
        assert supervisor.poll() is None, supervisor.communicate()[0]
        time.sleep(0.1)
      assert int(several.said(0).split("going on at step ")[-1].split()[0]) >= step
    several.waits_for_a_save(supervisor, after=fault_runs.saved(tmp_path))
    supervisor.send_signal(signal.SIGTERM)
    out = several.ends(supervisor, 75)
  assert out.count("starting again") == count, out
  for number in range(count):
    # one line for each death of another one, and no dump of JAX's
    errors = [line for line in several.said(number).splitlines() if line.startswith("error: ")]
    assert len(errors) == count - 1, several.said(number)
    assert all("another process of this run has died" in line for line in errors)
    assert "*** Check failure" not in several.said(number)
    assert "Traceback" not in several.said(number)


def losses(folder: Path) -> list[float]:
  rows = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
  return [row["train/loss"] for row in rows if "train/loss" in row]


def test_a_run_goes_on_with_more_and_with_fewer_processes(tmp_path):
  (tmp_path / "whole").mkdir()
  for folder, parts in ((tmp_path / "whole", ((1, 12),)), (tmp_path, ((2, 4), (4, 8), (1, 12)))):
    for count, steps in parts:
      several = Several(folder, count, "--restarts=1", steps=steps, log_every=1)
      with several.running() as supervisor:
        several.ends(supervisor, 0)
        assert len(list(folder.glob("x-*.pid"))) >= count
  assert len(losses(tmp_path)) == 12
  np.testing.assert_allclose(losses(tmp_path), losses(tmp_path / "whole"), rtol=1e-5)


def test_four_killed_in_turn_one_stopped_and_one_slow_end_where_an_undisturbed_run_ends(tmp_path):
  count, steps = 4, 200
  whole, folder = Several(tmp_path / "whole", count, steps=steps, log_every=1), tmp_path / "killed"
  several = Several(folder, count, f"--restarts={count + 1}", steps=steps, log_every=1)
  for each in (whole, several):
    each.folder.mkdir()
  with several.running() as supervisor:
    for hurt, number in enumerate([signal.SIGKILL] * count + [signal.SIGTERM]):
      step = several.waits_for_a_save(supervisor, after=fault_runs.saved(folder))
      os.kill(several.number(hurt % count), number)
      while several.said(0).count("going on at step") <= hurt:
        assert supervisor.poll() is None, supervisor.communicate()[0]
        time.sleep(0.1)
      assert int(several.said(0).split("going on at step ")[-1].split()[0]) >= step
    several.waits_for_a_save(supervisor, after=fault_runs.saved(folder))
    slow = several.number(2)
    os.kill(slow, signal.SIGSTOP)
    time.sleep(5)
    os.kill(slow, signal.SIGCONT)
    out = several.ends(supervisor, 0)
  assert out.count("starting again") == count + 1, out
  with whole.running() as supervisor:
    assert "starting again" not in whole.ends(supervisor, 0)
  assert len(losses(folder)) == steps
  assert losses(folder) == losses(whole.folder)
  assert fault_runs.equal(fault_runs.params(folder / "run"), fault_runs.params(whole.folder / "run"))
