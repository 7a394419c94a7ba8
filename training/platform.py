"""Settles what JAX must know before it starts its backend: compiler flags, virtual CPU devices, other processes."""

import ctypes
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
from jax.experimental import multihost_utils

import ending
from mistake import Mistake
from training import peers

# 1.25 to 1.34 times faster scans on CPUs that have AVX-512, and without effect on the others.
_CPU_FLAG = "--xla_cpu_prefer_vector_width=512"
# Virtual devices share the cores, so one with a long part comes late, and XLA would end the process after 40 seconds.
_WAIT_FLAG = "--xla_cpu_collective_call_terminate_timeout_seconds=3600"
THREADS_PER_DEVICE = 4
# names of malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def prepare(
  cpu_devices: int = 0, *, coordinator: str = "", processes: int = 0, process: int = -1, patience: int = 300
) -> None:
  """Sets flags, splits the CPU into `cpu_devices` devices (0: leave it alone) and joins the other processes of the run.

  Joins when the three process arguments say so, or when the surroundings do: SLURM and Open MPI with more than one
  task, GKE, and TPU pods, whose addresses JAX finds by itself.

  Args:
    coordinator: host:port of process 0.
    patience: seconds to wait for the other processes, at the start and when one stops answering.
  Raises:
    Mistake: the process arguments are incomplete or wrong, the others did not come, or the backend runs already with
      another number of devices.
  """
  _keep_freed_memory()
  # JAX's LAPACK on CPUs is SciPy's, which reads this when it is loaded, later than here. Its threads wait spinning,
  # which on a busy host took fifty times as long as the factorisations of LSSL's small matrices themselves.
  os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
  flags = os.environ.get("XLA_FLAGS", "")
  ours = [_CPU_FLAG, _WAIT_FLAG] if cpu_devices else [_CPU_FLAG]
  missing = [flag for flag in ours if flag.partition("=")[0] not in flags]
  os.environ["XLA_FLAGS"] = " ".join([flags, *missing]).strip()
  if cpu_devices and "xla_force_host_platform_device_count" not in flags:
    # A device that waits for the others holds a thread of XLA's pool, which has one a core: on two cores, two waiting
    # devices can leave none for the work they wait for, and the run hangs. XLA reads the pool's size here.
    os.environ.setdefault("NPROC", str(max(os.cpu_count() or 1, THREADS_PER_DEVICE * cpu_devices)))
    _split_cpu(cpu_devices)
  explicit = {"--coordinator": bool(coordinator), "--processes": processes > 0, "--process": process >= 0}
  if any(explicit.values()):
    missing = [name for name, given in explicit.items() if not given]
    if missing:
      raise Mistake(
        f"a run of several processes needs --coordinator, --processes and --process; missing: {', '.join(missing)}"
      )
    if process >= processes:
      raise Mistake(f"--process={process} is out of range: --processes={processes} allows 0 to {processes - 1}")
    if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\s/]+):[0-9]{1,5}", coordinator):
      raise Mistake(f"--coordinator={coordinator!r} is not host:port; give the address of process 0, e.g. node1:1234")
    if process > 0:
      _await(coordinator, patience)
    _join(patience, f"--coordinator={coordinator}", coordinator, processes, process, "deactivate")
  elif several_processes(os.environ):
    _join(patience, "the processes that the surroundings name")


def _await(coordinator: str, patience: int) -> None:
  """Waits until process 0 listens. JAX waits too, but ends the process with its own dump when the time is over."""
  host, _, port = coordinator.rpartition(":")
  end = time.monotonic() + patience
  while True:
    try:
      with socket.create_connection((host.strip("[]"), int(port)), timeout=max(end - time.monotonic(), 0.1)):
        return
    except (OSError, OverflowError) as error:
      if time.monotonic() > end:
        raise Mistake(
          f"--coordinator={coordinator}: process 0 did not answer within --patience={patience} s: {error}"
        ) from None
      time.sleep(0.2)


def _join(patience: int, who: str, *arguments: Any) -> None:
  names = ("coordinator_address", "num_processes", "process_id", "cluster_detection_method")
  try:
    peers.watch()
    jax.distributed.initialize(
      **dict(zip(names, arguments)), initialization_timeout=patience, heartbeat_timeout_seconds=max(patience, 10)
    )
  except (RuntimeError, ValueError) as error:
    reason = " ".join(str(error).split())[:200]
    raise Mistake(f"{who}: the processes did not find each other within --patience={patience} s: {reason}") from None


def _keep_freed_memory() -> None:
  """Tells glibc not to hand large buffers back to the system after each step, only to fault them in again in the next.

  One arena, as XLA allocates in threads of its own, and theirs map what is larger than 64 MiB whatever the other
  options say. With the page faults gone, layers train up to 1.4 times faster (S4D, at 4096 tokens on two cores).
  Elsewhere nothing happens.
  """
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
  if mallopt is not None:
    for option, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26)):
      mallopt(option, value)


def _split_cpu(devices: int) -> None:
  try:
    jax.config.update("jax_num_cpu_devices", devices)
  except RuntimeError:
    # a notebook or a test has started the backend already, which will do if it has as many devices
    if jax.default_backend() == "cpu" and jax.local_device_count() != devices:
      raise Mistake(
        f"mesh.cpu_devices={devices}, but JAX runs already with {jax.local_device_count()} CPU devices; "
        "start a new process, or set mesh.cpu_devices=0 to take what is there"
      ) from None


def several_processes(environ: Mapping[str, str]) -> bool:
  """Returns whether the environment names several processes: of SLURM, Open MPI, GKE or a TPU pod.

  A login shell inside a SLURM allocation is not a task of it, so SLURM counts by its step's variables.
  """
  tasks = environ.get("SLURM_NTASKS", "1") if "SLURM_STEP_NODELIST" in environ else "1"
  ranks = environ.get("OMPI_COMM_WORLD_SIZE", "1")
  hosts = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES") or ""
  for name, count in (("SLURM_NTASKS", tasks), ("OMPI_COMM_WORLD_SIZE", ranks)):
    if not count.isdecimal():
      raise Mistake(f"{name}={count!r} in the environment is no number of processes; unset it")
  return int(tasks) > 1 or int(ranks) > 1 or "," in hosts or "MEGASCALE_COORDINATOR_ADDRESS" in environ


@contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
  """Returns a function of the step: whether a signal asks to save and stop. A second one kills.

  Several processes stop at the same step; there JAX itself listens for SIGTERM, and the others are handed on as that.
  A signal that is ignored, as SIGHUP is under nohup, stays so.
  """
  several = jax.process_count() > 1
  asked: list[int] = []
  # only the main thread may set handlers; a loop run elsewhere is stopped by whoever runs it
  kinds: tuple[signal.Signals, ...] = ending.SIGNALS if threading.current_thread() is threading.main_thread() else ()
  before = {kind: signal.getsignal(kind) for kind in kinds if not (several and kind == signal.SIGTERM)}
  kinds = tuple(kind for kind, handler in before.items() if handler is not signal.SIG_IGN)

  def ask(number: int, _frame: object) -> None:
    asked.append(number)
    signal.signal(number, before[signal.Signals(number)])
    if several:
      os.kill(os.getpid(), signal.SIGTERM)

  for kind in kinds:
    signal.signal(kind, ask)
  try:
    yield multihost_utils.reached_preemption_sync_point if several else lambda step: bool(asked)
  finally:
    for kind in kinds:
      signal.signal(kind, before[kind])
