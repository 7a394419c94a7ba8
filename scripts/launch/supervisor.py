"""The processes of one run, on this machine or on others by ssh: started, stopped and started again together."""

import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from scripts.launch.job import DONE, HOPELESS, PORT, SAVED_AND_STOPPED, Job
from scripts.launchers import Launcher, Local, Process, Ssh

# seconds before all are started again
PAUSE = 10.0


def over_ssh(job: Job, hosts: Sequence[str]) -> list[list[str]]:
  """Returns the command of each process; the first host is where they meet."""
  # an address may have a user before it, which only ssh wants
  first = hosts[0].rpartition("@")[2]
  return [["./dev", "run", *job.arguments, *meeting(f"{first}:{PORT}", len(hosts), i)] for i in range(len(hosts))]


def here(job: Job) -> list[list[str]]:
  """Returns the command of each process on this machine; they meet at a port that is free now."""
  program = [sys.executable, str(Path(job.folder) / "main.py"), *job.arguments]
  if job.nodes == 1:
    return [program]
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  return [[*program, *meeting(f"localhost:{port}", job.nodes, i)] for i in range(job.nodes)]


def meeting(where: str, count: int, number: int) -> list[str]:
  """Returns the flags by which main.py finds the other processes."""
  return [f"--coordinator={where}", f"--processes={count}", f"--process={number}"]


def run_over_ssh(job: Job, hosts: Sequence[str], out: Path) -> int:
  """Supervises one process on each host."""
  return supervise(job, out, lambda: over_ssh(job, hosts), lambda: Ssh(hosts, Path(job.folder)))


def run_here(job: Job, out: Path) -> int:
  """Supervises all processes on this machine."""
  return supervise(job, out, lambda: here(job), Local)


def supervise(job: Job, out: Path, commands: Callable[[], list[list[str]]], launcher: Callable[[], Launcher]) -> int:
  """Runs until the run is done, cannot be helped, or has been started again `restarts` times; returns its exit code.

  Ctrl-C and SIGTERM let all processes save and end. Where one dies, the others notice it by themselves; what is left of
  them `grace` seconds later is killed. What each of them prints goes to OUT/NAME-PROCESS.txt.
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
      codes = _once(job, out, commands(), launcher(), running)
      code = next((code for code in codes if code in HOPELESS), max(codes, key=abs))
      if code in (DONE, *HOPELESS) or stopped:
        return SAVED_AND_STOPPED if stopped and code else code
      if tried < job.restarts:
        print(f"launch: exit codes {codes}; starting again, {tried + 1} of {job.restarts} times", file=sys.stderr)
        _rest(PAUSE, stopped)
        if stopped:
          return SAVED_AND_STOPPED
    return code
  finally:
    for kind, handler in before.items():
      signal.signal(kind, handler)


def _rest(seconds: float, stopped: Sequence[int]) -> None:
  end = time.monotonic() + seconds
  while not stopped and time.monotonic() < end:
    time.sleep(0.1)


def _once(job: Job, out: Path, commands: list[list[str]], launcher: Launcher, running: list[Process]) -> list[int]:
  """Runs all processes to their ends; returns their exit codes."""
  running.clear()
  for number, command in enumerate(commands):
    with open(out / f"{job.name}-{number}.txt", "a") as log, open(out / f"{job.name}-{number}.pid", "a+") as lock:
      running.append(launcher.start(command, log, lock))
  with ThreadPoolExecutor(len(running)) as pool:
    ends = {pool.submit(process.wait): process for process in running}
    while (left := [end for end in ends if not end.done()]) and not any(end.done() and _failed(end) for end in ends):
      wait(left, return_when=FIRST_COMPLETED)
    # one that has been suspended, or does not answer, would be waited for without end
    for end in wait(left, timeout=job.grace).not_done:
      ends[end].end()
    return [end.result() for end in ends]


def _failed(end: Future[int]) -> bool:
  return end.result() not in (DONE, SAVED_AND_STOPPED)
