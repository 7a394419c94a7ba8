"""Where the runs of a sweep are started: on this machine, on others by ssh, or as a SLURM array through submitit.

A launcher starts a command, whose output goes to a file, and gives a process: `wait()` returns its exit code, `stop()`
asks it to save and end. The folders of a sweep must be seen under the same path by all machines.
"""

import math
import os
import queue
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

from mistake import Mistake

# of the caller's environment, what a run on another machine needs
CARRIED = ("JAX_", "XLA_", "KERNEL_", "PYTHONPATH")
# keeps the exit code of the command, and asks it to save when the connection ends or is closed on purpose
REMOTE = (
  "cd {folder} && exec 3<&0 && {{ env {variables} {command} </dev/null & p=$!; "
  "{{ read _ <&3; kill -TERM $p; }} >/dev/null 2>&1 & w=$!; wait $p; c=$?; kill $w 2>/dev/null; exit $c; }}"
)
JOB = "slurm_job.txt"
# seconds between two looks at a queue
PATIENCE = 2.0
# so many looks at a queue without a job, and it is gone
LOOKS = 5


class Process(Protocol):
  """A run that was started."""

  def wait(self) -> int:
    """Waits for its end and returns its exit code, or the negative number of the signal that ended it."""

  def stop(self) -> None:
    """Asks it to save and end; returns at once."""

  def end(self) -> None:
    """Kills it, or with it the connection by which it runs; returns at once."""


class Launcher(Protocol):
  """Starts commands."""

  def start(self, command: Sequence[str], log: IO[str], lock: IO[str]) -> Process:
    """Starts a command with its output in `log`; the run's folder is that of `lock`, held while the process lives."""

  def settle(self, run: str) -> None:
    """Notes that a run has been started, or will not be for now; what is started together may wait for that."""


class _OneByOne:
  def settle(self, run: str) -> None:
    """Does nothing, as each is started by itself."""


class Local(_OneByOne):
  """Starts processes on this machine, which inherit the lock and so hold it whatever becomes of the sweep."""

  def start(self, command: Sequence[str], log: IO[str], lock: IO[str]) -> Process:
    """Starts one in a session of its own, so that a Ctrl-C reaches the sweep alone, and notes its number in `lock`."""
    return _Here(command, log, lock)


class _Here:
  def __init__(self, command: Sequence[str], log: IO[str], lock: IO[str], stdin: int | None = None):
    self.process = subprocess.Popen(
      command,
      stdin=stdin,
      stdout=log,
      stderr=subprocess.STDOUT,
      start_new_session=True,
      pass_fds=(lock.fileno(),),
    )
    lock.truncate(0)
    lock.write(str(self.process.pid))
    lock.flush()

  def wait(self) -> int:
    return self.process.wait()

  def stop(self) -> None:
    with suppress(ProcessLookupError):
      os.kill(self.process.pid, signal.SIGTERM)

  def end(self) -> None:
    with suppress(ProcessLookupError):
      os.kill(self.process.pid, signal.SIGKILL)


class Ssh(_OneByOne):
  """Starts commands on other machines, one at a time on each mention of a machine.

  They run as long as the connection lasts: where it or the sweep ends, the run gets SIGTERM and saves.
  """

  def __init__(self, hosts: Sequence[str], root: Path):
    if not hosts:
      raise Mistake("--launcher ssh needs --hosts, e.g. --hosts node1 node2, which see the folders of this machine")
    self._root, self._free = root, queue.Queue[str]()
    for host in hosts:
      self._free.put(host)

  def start(self, command: Sequence[str], log: IO[str], lock: IO[str]) -> Process:
    """Starts one on a machine that is free; there must be no more commands at once than machines."""
    carried = {key: value for key, value in os.environ.items() if key.startswith(CARRIED)}
    variables = shlex.join(f"{key}={value}" for key, value in carried.items())
    remote = REMOTE.format(folder=shlex.quote(str(self._root)), variables=variables, command=shlex.join(command))
    host = self._free.get()
    return _There(["ssh", "-o", "BatchMode=yes", host, remote], log, lock, host, self._free)


class _There(_Here):
  def __init__(self, command: Sequence[str], log: IO[str], lock: IO[str], host: str, free: "queue.Queue[str]"):
    self._host, self._free = host, free
    try:
      super().__init__(command, log, lock, stdin=subprocess.PIPE)
    except OSError:
      free.put(host)
      raise

  def wait(self) -> int:
    code = self.process.wait()
    self._free.put(self._host)
    return code

  def stop(self) -> None:
    # the end of its input is what the remote side takes for the wish to stop
    if self.process.stdin:
      with suppress(OSError):
        self.process.stdin.close()


class Slurm:
  """Submits commands as one SLURM array, a task each.

  Args:
    folder: for submitit's own files.
    parameters: as submitit's AutoExecutor.update_parameters takes them: timeout_min, slurm_partition, gpus_per_node …
    at_once: tasks of the array that run at the same time.
    runs: what is to be settled before the array is submitted; a command that is started later is a job of its own.
    cluster: "slurm", or another executor of submitit.
  Raises:
    Mistake: submitit is not installed, there is no SLURM here, or it does not know a parameter.
  """

  def __init__(
    self,
    folder: Path,
    parameters: Mapping[str, Any],
    *,
    at_once: int = 1,
    runs: Iterable[str] = (),
    cluster: str = "slurm",
  ):
    try:
      import submitit
    except ImportError:
      raise Mistake("--launcher slurm needs submitit; ./dev setup installs it") from None
    defaults = {"name": "sweep", "timeout_min": 60, "slurm_array_parallelism": at_once}
    try:
      self._executor = submitit.AutoExecutor(folder, cluster=cluster)
      self._executor.update_parameters(**(defaults | dict(parameters)))
    except (RuntimeError, NameError, TypeError) as error:
      raise Mistake(f"--launcher slurm: {' '.join(str(error).split())}") from None
    self._folder, self._queue = folder, _Queue()
    self._lock, self._open = threading.Lock(), set(runs)
    self._gathered: list[tuple[Task, _Queued]] = []

  def start(self, command: Sequence[str], log: IO[str], lock: IO[str]) -> Process:
    """Adds one to the array, or takes up the job that a sweep which was killed has left in the queue."""
    note = Path(lock.name).with_name(JOB)
    process = _Queued(self._queue, log, note)
    if note.exists() and not (job := self._left(note.read_text())).done():
      process.submitted(job)
      return process
    with self._lock:
      self._gathered.append((Task(list(command), Path(log.name)), process))
      if not self._open:
        self._submit()
    return process

  def settle(self, run: str) -> None:
    """Submits what was started, once all runs are settled."""
    with self._lock:
      if run in self._open:
        self._open.remove(run)
        if not self._open:
          self._submit()

  def _submit(self) -> None:
    wanted = [(task, process) for task, process in self._gathered if not process.is_over]
    self._gathered = []
    if not wanted:
      return
    try:
      with self._executor.batch():
        jobs = [self._executor.submit(task) for task, _ in wanted]
    # submitit has errors of its own for what sbatch refuses
    except Exception as error:
      for _, process in wanted:
        process.refused(Mistake(f"--launcher slurm: {' '.join(str(error).split())[:500]}"))
      return
    for job, (_, process) in zip(jobs, wanted):
      process.submitted(job)

  def _left(self, identity: str) -> Any:
    import submitit

    return submitit.SlurmJob(self._folder, identity)


class _Queue:
  """The jobs of this user, which SLURM is asked for every PATIENCE seconds, however many runs wait."""

  def __init__(self) -> None:
    self._lock, self._asked = threading.Lock(), -math.inf
    self._jobs: set[str] | None = None

  def lacks(self, identity: str) -> bool:
    """Returns True where SLURM answers and has no such job: submitit knows that from accounting, which may be off."""
    with self._lock:
      if time.monotonic() - self._asked >= PATIENCE:
        self._asked, self._jobs = time.monotonic(), None
        with suppress(OSError):
          ask = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i"]
          found = subprocess.run(ask, capture_output=True, text=True)
          self._jobs = None if found.returncode else set(found.stdout.split())
      return self._jobs is not None and identity not in self._jobs


class _Queued:
  def __init__(self, queue: _Queue, log: IO[str], note: Path):
    self._queue, self._log, self._note = queue, log, note
    self._job: Any = None
    self._error: Mistake | None = None
    self._known = threading.Event()
    self.is_over = False

  def submitted(self, job: Any) -> None:
    """Notes the job, for this sweep and the next."""
    self._job = job
    if self.is_over:
      # it was to stop while it was being submitted
      job.cancel()
      return
    self._note.write_text(job.job_id)
    self._known.set()

  def refused(self, error: Mistake) -> None:
    """Notes why there is no job, which `wait` raises."""
    self._error = error
    self._known.set()

  def wait(self) -> int:
    self._known.wait()
    if self._error is not None:
      raise self._error
    if self._job is None:
      return -signal.SIGTERM
    absent = 0
    # its result may come a moment after it has left the queue
    while not self._job.done() and absent < LOOKS:
      time.sleep(PATIENCE)
      absent = absent + 1 if self._queue.lacks(self._job.job_id) else 0
    self._note.unlink(missing_ok=True)
    if absent == LOOKS and not self._job.done(force_check=True):
      print(f"SLURM job {self._job.job_id} has left the queue without a result", file=self._log, flush=True)
      return 1
    # submitit reports what ended a job by exceptions of several kinds
    try:
      return int(self._job.result())
    except Exception as error:
      print(f"SLURM job {self._job.job_id}: {' '.join(str(error).split())}", file=self._log, flush=True)
      return 1

  def stop(self) -> None:
    # what is not submitted yet will not be
    self.is_over = True
    if self._job is not None:
      self._job.cancel()
    self._known.set()

  end = stop


class Task:
  """The command as a job runs it: submitit calls it there, and `checkpoint` when time is up or the node is taken."""

  def __init__(self, command: Sequence[str], log: Path):
    self.command, self.log = list(command), log

  def __call__(self) -> int:
    """Runs the command to its end and returns its exit code."""
    with open(self.log, "a") as log:
      self._process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT)
    return self._end()

  def checkpoint(self) -> Any:
    """Lets the command save, and asks for the job to be queued again."""
    import submitit

    with suppress(ProcessLookupError):
      self._process.send_signal(signal.SIGTERM)
    self._end()
    return submitit.helpers.DelayedSubmission(Task(self.command, self.log))

  def _end(self) -> int:
    # `checkpoint` comes as a signal in the middle of this, when a wait without end would hold the process's lock
    while (code := self._process.poll()) is None:
      time.sleep(0.1)
    return code
