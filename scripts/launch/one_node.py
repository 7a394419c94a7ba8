"""Runs SLURM as a cluster of this machine alone, to try scripts and sweeps before they go to a real one.

  apt-get install slurmctld slurmd slurm-client munge          Debian's packages
  ./dev python -m scripts.launch.one_node start DIR            prints the line that lets sbatch find it
  ./dev python -m scripts.launch.one_node stop DIR

Its daemons run as the user who starts them, with key, state and logs in DIR, and jobs run as that user. There is no
accounting, so `sacct` knows nothing. The machine counts as 16 CPUs, so that small jobs need not wait for each other.
"""

import argparse
import functools
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from arguments import Parser
from mistake import Mistake

PROGRAMS = ("munged", "slurmctld", "slurmd", "sinfo", "sbatch")
CPUS = 16
# seconds for a daemon to answer or to end
PATIENCE = 30.0
# JAX finds the first task by the name of its node, which has to resolve
NODE = "localhost"
# each needs those before it
DAEMONS = ("munged", "slurmctld", "slurmd")


def find(program: str) -> str | None:
  """Returns the path of a program, of a daemon where users' paths do not lead."""
  return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def missing() -> list[str]:
  """Returns the programs that are not installed."""
  return [program for program in PROGRAMS if not find(program)]


def settings(folder: Path, controller: int, daemon: int) -> str:
  """Returns slurm.conf: no cgroups, no accounting, and jobs that start again after seconds instead of minutes.

  Args:
    controller, daemon: free ports of slurmctld and slurmd.
  """
  user, host = getpass.getuser(), socket.gethostname()
  lines = [
    "ClusterName=one",
    f"SlurmctldHost={host}(127.0.0.1)",
    f"SlurmUser={user}",
    f"SlurmdUser={user}",
    "AuthType=auth/munge",
    "CredType=cred/munge",
    # a job that is queued again waits until its old credential has expired
    f"AuthInfo=socket={folder}/munge.socket,cred_expire=30",
    f"SlurmctldPort={controller}",
    f"SlurmdPort={daemon}",
    f"StateSaveLocation={folder}/state",
    f"SlurmdSpoolDir={folder}/spool",
    f"SlurmctldPidFile={folder}/slurmctld.pid",
    f"SlurmdPidFile={folder}/slurmd.pid",
    f"SlurmctldLogFile={folder}/slurmctld.txt",
    f"SlurmdLogFile={folder}/slurmd.txt",
    "ProctrackType=proctrack/linuxproc",
    "TaskPlugin=task/none",
    "JobAcctGatherType=jobacct_gather/none",
    "AccountingStorageType=accounting_storage/none",
    "SelectType=select/cons_tres",
    "SelectTypeParameters=CR_CPU",
    # the machine is shared out more than once
    "SlurmdParameters=config_overrides",
    "MpiDefault=none",
    "ReturnToService=2",
    "KillWait=20",
    f"NodeName={NODE} NodeHostname={host} NodeAddr=127.0.0.1 CPUs={CPUS} State=UNKNOWN",
    f"PartitionName=all Nodes={NODE} Default=YES MaxTime=INFINITE State=UP",
  ]
  return "".join(f"{line}\n" for line in lines)


def start(folder: Path) -> Path:
  """Starts the daemons and returns the path of slurm.conf, which SLURM_CONF should name.

  Raises:
    Mistake: programs are missing, one runs there already, or a daemon does not start; its log says why.
  """
  if absent := missing():
    raise Mistake(
      f"one_node: {', '.join(absent)} not installed; apt-get install slurmctld slurmd slurm-client munge (Debian)"
    )
  folder = folder.absolute()
  if alive := [name for name in DAEMONS if _number(folder, name)]:
    raise Mistake(f"one_node: {', '.join(alive)} runs in {folder} already; stop it first, or give another folder")
  for name in ("state", "spool"):
    (folder / name).mkdir(parents=True, exist_ok=True)
  key = folder / "munge.key"
  if not key.exists():
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(1024))
  path = folder / "slurm.conf"
  path.write_text(settings(folder, *_free_ports(2)))
  os.environ["SLURM_CONF"] = str(path)
  try:
    # all is done by one user, whose folder others need not enter
    _daemon(
      folder,
      ["munged", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid"]
      + [f"--log-file={folder}/munged.txt", f"--seed-file={folder}/munge.seed", "--num-threads=1"],
    )
    _daemon(folder, ["slurmctld", "-c"])
    _daemon(folder, ["slurmd", "-N", NODE])
    _until(lambda: "idle" in _sinfo(), f"no node is idle within {PATIENCE:.0f} s; see {folder}/slurmd.txt")
  except BaseException:
    stop(folder)
    raise
  return path


def stop(folder: Path) -> None:
  """Stops the daemons of a folder, jobs that still run with them."""
  path = folder.absolute() / "slurm.conf"
  if _number(folder, "slurmctld"):
    with suppress(subprocess.SubprocessError, OSError):
      environment = {**os.environ, "SLURM_CONF": str(path)}
      subprocess.run(["scancel", "--user", getpass.getuser()], env=environment, timeout=PATIENCE, check=False)
  for name in reversed(DAEMONS):
    number = _number(folder, name)
    if not number:
      continue
    os.kill(number, signal.SIGTERM)
    with suppress(Mistake):
      _until(functools.partial(_stopped, folder, name), "")
    if _number(folder, name):
      os.kill(number, signal.SIGKILL)


@contextmanager
def running(folder: Path) -> Iterator[Path]:
  """Runs the cluster inside a `with` block; SLURM_CONF names it meanwhile."""
  before = os.environ.get("SLURM_CONF")
  try:
    yield start(folder)
  finally:
    stop(folder)
    os.environ.pop("SLURM_CONF", None)
    if before is not None:
      os.environ["SLURM_CONF"] = before


def _free_ports(count: int) -> list[int]:
  with_socket = [socket.socket() for _ in range(count)]
  try:
    for one in with_socket:
      one.bind(("127.0.0.1", 0))
    return [one.getsockname()[1] for one in with_socket]
  finally:
    for one in with_socket:
      one.close()


def _daemon(folder: Path, command: list[str]) -> None:
  """Starts a daemon, which goes into the background by itself, and waits until its pid file is there."""
  name = command[0]
  done = subprocess.run([find(name) or name, *command[1:]], capture_output=True, text=True, timeout=PATIENCE)
  if done.returncode:
    raise Mistake(f"one_node: {name} did not start: {' '.join((done.stderr or done.stdout).split())[-300:]}")
  _until(lambda: _number(folder, name) is not None, f"{name} has ended; see {folder}/{name}.txt")


def _sinfo() -> str:
  done = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, timeout=PATIENCE)
  return done.stdout


def _stopped(folder: Path, name: str) -> bool:
  """Returns whether a daemon does not run."""
  return not _number(folder, name)


def _number(folder: Path, name: str) -> int | None:
  """Returns the process of a daemon, or None where it does not run; its pid file may be left from another time."""
  try:
    number = int((folder / f"{name}.pid").read_text())
    command = Path(f"/proc/{number}/cmdline").read_bytes()
  except (OSError, ValueError):
    return None
  return number if name.encode() in command.partition(b"\0")[0] else None


def _until(true: Callable[[], bool], failure: str) -> None:
  end = time.monotonic() + PATIENCE
  while not true():
    if time.monotonic() > end:
      raise Mistake(f"one_node: {failure}")
    time.sleep(0.1)


def main(argv: list[str] | None = None) -> int:
  """Starts or stops the cluster. Exit code: 2 where that cannot be done."""
  parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("what", choices=("start", "stop"))
  parser.add_argument("folder", type=Path, metavar="DIR")
  args = parser.parse_args(argv)
  try:
    if args.what == "start":
      print(f"export SLURM_CONF={start(args.folder)}")
    else:
      stop(args.folder)
  except (Mistake, OSError, subprocess.SubprocessError) as error:
    print(error, file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
