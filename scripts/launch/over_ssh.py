"""A run on several machines that ssh reaches: started together, stopped together, and started again together."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.launch.job import HOPELESS, PORT, SAVED_AND_STOPPED, Job
from scripts.launchers import Process, Ssh

DONE, MISTAKE = 0, 2
# seconds before all are started again
PAUSE = 10.0


def commands(job: Job, hosts: Sequence[str]) -> list[list[str]]:
  """Returns the command of each process; the first host is where they meet."""
  # an address may have a user before it, which only ssh wants
  first = hosts[0].rpartition("@")[2]
  meet = [f"--coordinator={first}:{PORT}", f"--processes={len(hosts)}"]
  return [["./dev", "run", *job.arguments, *meet, f"--process={i}"] for i in range(len(hosts))]


def supervise(job: Job, hosts: Sequence[str], out: Path) -> int:
  """Runs until the run is done, cannot be helped, or has been started again `restarts` times; returns its exit code.

  Ctrl-C and SIGTERM let all processes save and end. What each of them prints goes to OUT/NAME-PROCESS.txt.
  """
  stopped: list[int] = []
  running: list[Process] = []

  def stop(number: int, _frame: Any) -> None:
    stopped.append(number)
    for process in running:
      process.stop()

  before = {kind: signal.signal(kind, stop) for kind in (signal.SIGINT, signal.SIGTERM)}
  try:
    for tried in range(job.restarts + 1):
      codes = _once(job, hosts, out, running)
      code = next((code for code in codes if code in HOPELESS), max(codes, key=abs))
      if code in (DONE, *HOPELESS) or stopped:
        return SAVED_AND_STOPPED if stopped and code else code
      if tried < job.restarts:
        print(f"launch: exit codes {codes}; starting again, {tried + 1} of {job.restarts} times", file=sys.stderr)
        time.sleep(PAUSE)
    return code
  finally:
    for kind, handler in before.items():
      signal.signal(kind, handler)


def _once(job: Job, hosts: Sequence[str], out: Path, running: list[Process]) -> list[int]:
  launcher = Ssh(hosts, Path(job.folder))
  running.clear()
  for number, command in enumerate(commands(job, hosts)):
    with open(out / f"{job.name}-{number}.txt", "a") as log, open(out / f"{job.name}-{number}.pid", "a+") as lock:
      running.append(launcher.start(command, log, lock))
  return [process.wait() for process in running]


def submit(commands: Sequence[Sequence[str]], out: Path) -> int:
  """Runs the commands that submit something; returns the first exit code that is not 0."""
  for command in commands:
    try:
      code = subprocess.run(command, cwd=out, check=False).returncode
    except FileNotFoundError:
      print(f"launch: {command[0]} is not installed here; --dry-run prints what to submit elsewhere", file=sys.stderr)
      return MISTAKE
    if code:
      return code
  return DONE
