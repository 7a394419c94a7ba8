"""Faults of runs of two processes; tests/faults.py says what a fault is, and runs them with all others."""

import signal
from collections.abc import Callable, Iterable
from pathlib import Path

import main as program
from tests.fault_runs import ends, saved, several, started, wait_for_save
from training import peers

# until it is stopped
ENDLESS = ",batch=4,log_every=0,eval.every=0"
STOPPING = (signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM)


def peer_killed(folder: Path) -> None:
  """one of two processes is killed (kill -9) | the other ends with code 4 in one line; both go on at the last save"""
  for lost in (0, 1):
    with several(folder, steps=100_000, sizes=ENDLESS) as processes:
      wait_for_save(folder, processes[0], after=saved(folder))
      processes[lost].kill()
      out = ends(processes[1 - lost], peers.LOST)
      lines = [line for line in out.splitlines() if line.startswith("error: ")]
      assert len(lines) == 1, out
      assert "another process of this run has died" in lines[0]
      assert "*** Check failure" not in out, out
  with several(folder, steps=100_000, sizes=ENDLESS) as processes:
    wait_for_save(folder, processes[0], after=saved(folder))
    processes[0].send_signal(signal.SIGTERM)
    assert "going on at step" in ends(processes[0], program.STOPPED)


def peer_disk_full(folder: Path, count: int = 2, among: Iterable[int] = (0, 1)) -> None:
  """the disk of one of two processes is full at a save | code 2 there and code 4 in the other, a line each"""
  # every process saves a part
  run = dict(count=count, sizes=f",width={16 * count},batch={count}")
  for full in among:
    with several(folder, f"--config.mesh.fsdp={count}", limits={full: 20_000}, **run) as processes:
      for i, process in enumerate(processes):
        code, words = (program.MISTAKE, "too large") if i == full else (peers.LOST, "has died")
        errors = [line for line in ends(process, code).splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, errors
        assert words in errors[0]
  with several(folder, f"--config.mesh.fsdp={count}", **run) as processes:
    for process in processes:
      ends(process, 0)


def peer_mistaken(folder: Path) -> None:
  """one of two processes does not find its data | code 2 there and code 4 in the other, a line each"""
  with several(folder, sizes=ENDLESS, own={1: ("--config.data.files=nowhere",)}) as processes:
    for process, code, words in zip(
      processes, (peers.LOST, program.MISTAKE), ("has died", "no file matches 'nowhere'")
    ):
      errors = [line for line in ends(process, code).splitlines() if line.startswith("error: ")]
      assert len(errors) == 1, errors
      assert words in errors[0]


def signal_to_one(folder: Path, count: int = 2, numbers: Iterable[signal.Signals] = STOPPING) -> None:
  """SIGHUP, SIGUSR1, SIGINT or SIGTERM to one of two processes | both save the same step and end with code 75"""
  for i, number in enumerate(numbers):
    own = folder / number.name
    own.mkdir()
    with several(own, count=count, steps=100_000, sizes=ENDLESS) as processes:
      wait_for_save(own, processes[0])
      processes[i % count].send_signal(number)
      outs = [ends(process, program.STOPPED) for process in processes]
      steps = {out.split("stopped at step ")[1].split(",")[0] for out in outs}
      assert len(steps) == 1, outs


def coordinator_missing(folder: Path) -> None:
  """process 0 of two never comes | code 2 in one line after --patience seconds"""
  more = ("--coordinator=localhost:9", "--processes=2", "--process=1", "--patience=5")
  with started(folder, *more) as process:
    out = ends(process, program.MISTAKE)
    assert "--patience=5" in out.strip().splitlines()[-1], out


PEERS: dict[str, Callable[[Path], None]] = {
  fault.__name__: fault for fault in (peer_killed, peer_disk_full, peer_mistaken, signal_to_one, coordinator_missing)
}
