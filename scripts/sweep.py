"""Runs every setting of a config's `get_sweep()`, several at once if asked, each by main.py in a folder of its own.

  ./dev sweep --config configs/mqar.py[:key=value,…] --out DIR [--jobs N] [-- --config.a.b=v …]

DIR/NAME is the workdir of the run NAME (its overrides), DIR/NAME/log.txt what it printed, DIR/results.jsonl one line a
run: name, overrides, status, exit code, seconds, the run's summary, and its last line of output if it failed; the
terminal shows a short line a run. The same command again skips what is done and resumes the rest. A run is known by a
digest of what it runs (overrides, the config they resolve to, flags after `--`): where any of these has changed it
starts anew, in a folder NAME,DIGEST. Runs that outlive a killed sweep are waited for. A failed run stops nothing; it
makes the exit code 1.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple

from configs import grammar
from mistake import Mistake
from scripts import results
from training import config_file

ROOT = Path(__file__).resolve().parents[1]
LOG, SUMMARY, CONFIG = "log.txt", "summary.json", "config.json"
# in a run's folder: the digest of what runs there, and a lock that its process holds while it lives
DIGEST, LOCK = "sweep_digest.txt", "sweep.lock"
# file systems allow 255 bytes; a suffix of digest and comma must fit as well
LONGEST_NAME = 200
SAVED_AND_STOPPED = 75
STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Run(NamedTuple):
  """One setting of a sweep."""

  name: str  # of its folder
  overrides: dict[str, Any]
  config: str  # as main.py takes it: file and argument
  resolved: Any  # the config as JSON, None where the file does not give one
  digest: str  # of all that decides what runs
  origin: str  # digest of what all runs of this command share


def overrides(config: str) -> list[dict[str, Any]]:
  """The override dicts of a config file.

  Raises:
    Mistake: no such file, no `get_sweep` in it, or one that gives nothing or the same setting twice.
  """
  path = config_file.find(config.partition(":")[0])
  module = runpy.run_path(str(path))
  if "get_sweep" not in module:
    raise Mistake(f"--config: {path} has no get_sweep(); add one that yields dicts like dict(mixer='s5', lr=1e-3)")
  settings = [dict(each) for each in module["get_sweep"]()]
  arguments = [argument(setting) for setting in settings]
  if not settings or len(set(arguments)) < len(arguments):
    twice = sorted({each for each in arguments if arguments.count(each) > 1})
    raise Mistake(f"--config: get_sweep() of {path} gives " + (f"{twice} more than once" if settings else "nothing"))
  return settings


def plan(config: str, flags: list[str]) -> list[Run]:
  """The runs of a config file, with digests of what each would run; raises what `overrides` does."""
  settings = overrides(config)
  name, _, given = config.partition(":")
  file = config_file.find(name)
  grammar.pairs(given)
  get_config, source = runpy.run_path(str(file))["get_config"], file.read_text()

  def resolve(text: str) -> Any:
    # what is wrong with a config is for main.py to say, run by run
    with contextlib.suppress(Exception):
      return json.loads(get_config(text).to_json())

  shared = resolve(given)
  origin = digest(shared if shared is not None else [source, given], flags)
  runs = []
  for setting in settings:
    text = argument(setting)
    whole = ",".join(filter(None, (given, text)))
    resolved = resolve(whole)
    identity = digest(resolved if resolved is not None else [source, given], text, flags)
    runs.append(Run(run_name(setting), setting, f"{file}:{whole}", resolved, identity, origin))
  return runs


def digest(*parts: Any) -> str:
  """Twelve hexadecimal digits that tell JSON values apart."""
  return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()[:12]


def run_name(setting: Mapping[str, Any]) -> str:
  """The folder of a run: its overrides, with what a file system may not like replaced and what is too long cut."""
  name = re.sub(r"[^A-Za-z0-9=.,+-]", "_", argument(setting)) or "default"
  return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]},{digest(argument(setting))}"


def argument(setting: Mapping[str, Any]) -> str:
  """`{'mixer': 's5', 'lr': 0.001}` -> `mixer=s5,lr=0.001`, as config files take it."""
  texts = {key: grammar.quoted(value) if isinstance(value, str) else value for key, value in setting.items()}
  return ",".join(f"{key}={text}" for key, text in texts.items())


class Sweep:
  """The runs of one command and the file of their results."""

  def __init__(self, out: Path, runs: list[Run], argument: str, flags: list[str]):
    self._out, self._argument, self._flags = out, argument, flags
    self._ended, self._total = 0, len(runs)
    self._lock = threading.Lock()
    self._running: set[int] = set()
    self._stopped = False
    self._results = {line["digest"] or line["name"]: line for line in results.read(out / results.RESULTS)}

  def status(self, run: Run) -> str:
    """'done', 'failed', 'interrupted', or 'not run'."""
    return self._results.get(run.digest, {}).get("status", "not run")

  def others(self, runs: list[Run]) -> int:
    """How many lines belong to other settings than these runs."""
    return len(set(self._results) - {run.digest for run in runs})

  def run(self, run: Run) -> None:
    """Runs one setting, unless it is done already; its line is written when it ends."""
    with self._lock:
      folder = self._folder(run)
    if self._stopped:
      return
    if self.status(run) == "done":
      with self._lock:
        self._ended += 1
      return
    with self._held(folder / LOCK, run.name) as lock:
      if lock is None:
        return
      began = time.time()
      with open(folder / LOG, "a") as log:
        code = self._main(run, folder, log, lock)
    done, saved = code == 0, code == SAVED_AND_STOPPED or self._stopped
    result = {"name": run.name, "overrides": run.overrides, "status": _status(done, saved), "exit": code}
    result |= {"seconds": round(time.time() - began, 1), "summary": _json(folder / SUMMARY) if done else {}}
    result |= {"digest": run.digest, "folder": folder.name, "origin": run.origin}
    result |= {"argument": self._argument, "flags": self._flags}
    if result["status"] == "failed":
      result["error"] = _reason(code, folder / LOG)
    with self._lock:
      self._results[run.digest] = result
      results.write(self._out / results.RESULTS, self._results.values())
      self._ended += 1
      line = f"{self._ended}/{self._total} {outcome(result)}"
    say(line)

  def _folder(self, run: Run) -> Path:
    """Where a run lives: DIR/NAME, or DIR/NAME,DIGEST if another run has that folder."""
    folder = self._out / run.name
    older = self._results.get(run.name)
    if not (folder / DIGEST).exists() and run.resolved is not None and _json(folder / CONFIG) == run.resolved:
      # by a sweep that knew runs by their names, and the same run
      if older and not self._flags:
        self._results[run.digest] = self._results.pop(run.name) | {"digest": run.digest, "origin": run.origin}
    elif _text(folder / DIGEST) != run.digest and folder.exists() and any(folder.iterdir()):
      folder = self._out / f"{run.name},{run.digest}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DIGEST).write_text(run.digest)
    return folder

  @contextlib.contextmanager
  def _held(self, path: Path, name: str) -> Iterator[IO[str] | None]:
    """The lock of a run's folder, waited for while a process of a killed sweep holds it; None when told to stop."""
    with open(path, "a+") as lock:
      waited = False
      while not _locks(lock):
        if self._stopped:
          with contextlib.suppress(ValueError, ProcessLookupError, PermissionError):
            os.killpg(int(_text(path)), signal.SIGTERM)
          yield None
          return
        if not waited:
          before = f"process {_text(path)}, which a killed sweep left behind"
          print(f"sweep: {name} still runs as {before}; waiting for its end", file=sys.stderr)
        waited = True
        time.sleep(0.2)
      yield lock

  def _main(self, run: Run, folder: Path, log: IO[str], lock: IO[str]) -> int:
    command = [sys.executable, str(ROOT / "main.py"), "--config", run.config, "--workdir", str(folder), *self._flags]
    with self._lock:
      if self._stopped:
        return -signal.SIGTERM
      # the process inherits the lock and so holds it as long as it lives, whatever becomes of this one
      process = subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, pass_fds=(lock.fileno(),)
      )
      self._running.add(process.pid)
    lock.truncate(0)
    lock.write(str(process.pid))
    lock.flush()
    code = process.wait()
    with self._lock:
      self._running.discard(process.pid)
    return code

  def stop(self, *_: Any) -> None:
    """Starts no more runs, and lets those that are running save and end."""
    # signal handlers run in the main thread, which never holds the lock itself
    with self._lock:
      self._stopped = True
      for number in self._running:
        with contextlib.suppress(ProcessLookupError):
          os.kill(number, signal.SIGTERM)


def _status(done: bool, saved: bool) -> str:
  return "done" if done else "interrupted" if saved else "failed"


def _locks(file: IO[str]) -> bool:
  """Whether the lock of a file could be taken; where the file system has none, it is up to the user."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError:
    return True
  return True


def _text(path: Path) -> str:
  return path.read_text(errors="replace") if path.exists() else ""


def _json(path: Path) -> dict[str, Any]:
  try:
    return json.loads(_text(path) or "{}")
  except (ValueError, RecursionError):
    return {}


def outcome(result: Mapping[str, Any]) -> str:
  """A run's line in words: its name and how it ended, with one metric, accuracy before loss, or why it failed."""
  found = result["summary"].get("metrics", {})
  metrics = {key: value for key, value in found.items() if key.startswith("eval/") and value is not None}
  least = lambda key: (not key.endswith("/accuracy"), not key.endswith("/loss"), not key.startswith("eval/validation/"))
  shown = [f"{key.removeprefix('eval/').replace('/', ' ')} {metrics[key]:.3g}" for key in sorted(metrics, key=least)]
  more = [result["error"]] if "error" in result else shown[:1]
  return ", ".join([f"{result['name']}: {result['status']} in {result['seconds']:.0f} s", *more])


def _reason(code: int, log: Path) -> str:
  lines = [line.strip() for line in _text(log).splitlines() if line.strip()]
  last = lines[-1] if lines else "it printed nothing"
  return f"killed by {signal.Signals(-code).name}; its last line: {last}" if code < 0 else last


def say(line: str) -> None:
  """Prints a line, if anybody still reads."""
  try:
    print(line, flush=True)
  except BrokenPipeError:
    # the runs go on: their lines are in the file
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse(argv: list[str] | None) -> argparse.Namespace:
  """The command line; what follows `--` is passed on to main.py."""
  parser = argparse.ArgumentParser(prog="sweep", description=__doc__.partition("\n")[0])
  parser.add_argument("--config", required=True, help="config file with a get_sweep(), as main.py takes it")
  parser.add_argument("--out", required=True, type=Path, help="folder of all runs")
  parser.add_argument("--jobs", type=int, default=1, help="runs at once")
  parser.add_argument("flags", nargs="*", help="further flags of main.py, after --")
  return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
  """Runs what is not done. Exit code: 0 all done, 1 some failed, 2 wrong arguments, 75 interrupted."""
  args = parse(argv)
  try:
    if args.jobs < 1:
      raise Mistake(f"--jobs: {args.jobs}; give at least 1")
    runs = plan(args.config, args.flags)
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / LOCK, "a") as lock:
      if not _locks(lock):
        raise Mistake(f"--out: another sweep is running in {args.out}; wait for it, or give another folder")
      return run_all(runs, args)
  except (Mistake, OSError) as error:
    print(f"sweep: {error}", file=sys.stderr)
    return 2


def run_all(runs: list[Run], args: argparse.Namespace) -> int:
  """Runs what is not done, some at once, and says how it ended."""
  sweep = Sweep(args.out.absolute(), runs, args.config.partition(":")[2], args.flags)
  if others := sweep.others(runs):
    print(f"sweep: {others} lines of {args.out / results.RESULTS} are of other settings; they stay", file=sys.stderr)
  before = {number: signal.signal(number, sweep.stop) for number in STOPPING_SIGNALS}
  try:
    with ThreadPoolExecutor(args.jobs) as pool:
      for future in [pool.submit(sweep.run, run) for run in runs]:
        future.result()
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
  statuses = [sweep.status(run) for run in runs]
  done = statuses.count("done")
  failed = [run.name for run, status in zip(runs, statuses) if status == "failed"]
  print(
    f"sweep: {done} of {len(runs)} runs done, failed: {failed or 'none'}; {args.out / results.RESULTS}", file=sys.stderr
  )
  return 0 if done == len(runs) else 1 if failed else SAVED_AND_STOPPED


if __name__ == "__main__":
  sys.exit(main())
