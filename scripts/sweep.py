"""Runs every setting of a grid or a config's `get_sweep()`, several at once, each by main.py in a folder of its own.

  ./dev sweep --config configs/mqar.py[:key=value,…] --out DIR [--jobs N] [-- --config.a.b=v …]
      [--grid lr=1e-3,2e-3 mixer=mamba,s5 seed=0,1,2] [--only mixer=mamba,s5] [--seeds 0,1,2]
      [--match parameters=100k|state=8k|flops=1M [--solve width|depth|m.state] [--tolerance 0.02]]
      [--launcher local|ssh|slurm] [--hosts a b] [--slurm timeout_min=600 slurm_partition=gpu] [--mode count [--json]]

--grid takes the place of get_sweep(): each value with each of all others; several --grid stand beside each other.
--only keeps the settings that have one of these values of each key, --seeds runs each of them with every seed.
--match solves the width, or the key of --solve, of each model so that all have as many parameters, bytes of state or
forward operations per token; it prints the table first, and what cannot be matched does not run. --mode count prints
what all settings count, of --match the matched ones, and runs none.

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
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import ending
from arguments import Parser
from configs import grammar
from mistake import Mistake
from scripts import launchers, results
from scripts.plan import Run, grid, only, overrides, plan, run_name, seeded

ROOT = Path(__file__).resolve().parents[1]
LOG, SUMMARY, CONFIG = "log.txt", "summary.json", "config.json"
# in a run's folder: the digest of what runs there, and a lock that its process holds while it lives
DIGEST, LOCK = "sweep_digest.txt", "sweep.lock"
MISTAKE, SAVED_AND_STOPPED = 2, 75


class Sweep:
  """The runs of one command and the file of their results."""

  def __init__(self, out: Path, runs: list[Run], argument: str, flags: list[str], launcher: launchers.Launcher):
    self._out, self._argument, self._flags, self._launcher = out, argument, flags, launcher
    self._ended, self._total = 0, len(runs)
    # signal handlers take it in the main thread, and one signal may come while another one's handler has it
    self._lock = threading.RLock()
    self._running: set[launchers.Process] = set()
    self._stopped = False
    self._results = {line["digest"] or line["name"]: line for line in results.read(out / results.RESULTS)}

  def status(self, run: Run) -> str:
    """Returns 'done', 'failed', 'interrupted', or 'not run'."""
    return self._results.get(run.digest, {}).get("status", "not run")

  def others(self, runs: list[Run]) -> int:
    """Counts the lines that belong to other settings than these runs."""
    return len(set(self._results) - {run.digest for run in runs})

  def run(self, run: Run) -> None:
    """Runs one setting, unless it is done already; its line is written when it ends."""
    began, folder = time.monotonic(), self._out / run.name
    try:
      with self._lock:
        folder = self._folder(run)
      if self._stopped:
        return
      if self.status(run) == "done":
        with self._lock:
          self._ended += 1
        return
      with self._held(folder / LOCK, run) as lock:
        if lock is None:
          return
        began = time.monotonic()
        with open(folder / LOG, "a") as log:
          code = self._main(run, folder, log, lock)
      error = _reason(code, folder / LOG) if code else ""
    except OSError as problem:
      # such as a file where its folder belongs; the other runs go on
      code, error = MISTAKE, f"its folder cannot be used: {problem}"
    finally:
      self._launcher.settle(run.digest)
    self._keep(run, folder, code, error, time.monotonic() - began)

  def _keep(self, run: Run, folder: Path, code: int, error: str, seconds: float) -> None:
    """Writes the line of a run that has ended, and says it."""
    done, saved = code == 0, code == SAVED_AND_STOPPED or self._stopped
    result = {"name": run.name, "overrides": run.overrides, "status": _status(done, saved), "exit": code}
    result |= {"seconds": round(seconds, 1), "summary": _json(folder / SUMMARY) if done else {}}
    result |= {"digest": run.digest, "folder": folder.name, "origin": run.origin}
    result |= {"argument": self._argument, "flags": self._flags, "config": run.config}
    if result["status"] == "failed":
      result["error"] = error
    with self._lock:
      self._results[run.digest] = result
      results.write(self._out / results.RESULTS, self._results.values())
      self._ended += 1
      line = f"{self._ended}/{self._total} {outcome(result)}"
    say(line)

  def _folder(self, run: Run) -> Path:
    """Returns the folder of a run: DIR/NAME, or DIR/NAME,DIGEST if another run has that folder."""
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
  def _held(self, path: Path, run: Run) -> Iterator[IO[str] | None]:
    """Locks a run's folder; waits while a process of a killed sweep holds it, and yields None when told to stop."""
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
          print(f"sweep: {run.name} still runs as {before}; waiting for its end", file=sys.stderr)
          self._launcher.settle(run.digest)
        waited = True
        time.sleep(0.2)
      yield lock

  def _main(self, run: Run, folder: Path, log: IO[str], lock: IO[str]) -> int:
    command = [sys.executable, str(ROOT / "main.py"), "--config", run.config, "--workdir", str(folder), *self._flags]
    with self._lock:
      if self._stopped:
        return -signal.SIGTERM
      process = self._launcher.start(command, log, lock)
      self._running.add(process)
    self._launcher.settle(run.digest)
    code = process.wait()
    with self._lock:
      self._running.discard(process)
    return code

  def stop(self, *_: Any) -> None:
    """Starts no more runs, and lets those that are running save and end."""
    with self._lock:
      self._stopped = True
      for process in self._running:
        process.stop()


def _status(done: bool, saved: bool) -> str:
  return "done" if done else "interrupted" if saved else "failed"


def _locks(file: IO[str]) -> bool:
  """Returns whether the lock of a file could be taken; where the file system has none, it is up to the user."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError:
    return True
  return True


def is_running(out: Path) -> bool:
  """Returns whether a sweep runs in the folder."""
  if not (out / LOCK).exists():
    return False
  with open(out / LOCK, "a") as lock:
    return not _locks(lock)


def has_begun(out: Path) -> bool:
  """Returns whether a sweep runs in the folder or has done so."""
  return (out / LOCK).exists() or (out / results.RESULTS).exists()


def _text(path: Path) -> str:
  return path.read_text(errors="replace") if path.is_file() else ""


def _json(path: Path) -> dict[str, Any]:
  try:
    return json.loads(_text(path) or "{}")
  except (ValueError, RecursionError):
    return {}


def outcome(result: Mapping[str, Any]) -> str:
  """Returns a run's line in words: its name and how it ended, with accuracy, else loss, or why it failed."""
  measured = result["summary"].get("metrics", {})
  metrics = {key: value for key, value in measured.items() if key.startswith("eval/") and value is not None}
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
  """Parses the command line; what follows `--` is passed on to main.py."""
  form = argparse.RawDescriptionHelpFormatter
  parser = Parser(prog="sweep", description=__doc__, formatter_class=form)
  parser.add_argument("--config", required=True, help="config file, as main.py takes it")
  parser.add_argument("--out", type=Path, help="folder of all runs")
  parser.add_argument("--jobs", type=int, default=1, help="runs at once; on each host of --launcher ssh")
  parser.add_argument("--grid", nargs="+", action="append", metavar="KEY=VALUE,…", help="settings without get_sweep()")
  parser.add_argument("--only", nargs="+", default=[], metavar="KEY=VALUE,…", help="settings that have these values")
  parser.add_argument("--seeds", metavar="N,…", help="seeds that every setting runs with")
  parser.add_argument("--match", metavar="QUANTITY=VALUE", help="a budget: parameters, state (bytes) or flops")
  parser.add_argument("--solve", default="width", metavar="KEY", help="the key that --match solves for")
  parser.add_argument("--tolerance", type=float, default=0.02, help="how far from the budget a model may be")
  parser.add_argument("--launcher", choices=("local", "ssh", "slurm"), default="local", help="where the runs are")
  parser.add_argument("--hosts", nargs="+", default=[], help="machines of --launcher ssh")
  parser.add_argument("--slurm", nargs="+", default=[], metavar="KEY=VALUE", help="submitit's parameters of a job")
  parser.add_argument("--mode", choices=("train", "count"), default="train", help="count prints and runs nothing")
  parser.add_argument("--json", action="store_true", help="--mode count: a line of JSON for each setting")
  parser.add_argument("flags", nargs="*", help="further flags of main.py, after --")
  return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
  """Runs what is not done.

  Exit code: 0 all done, 1 some failed or could not be matched, 2 wrong arguments, 75 interrupted.
  """
  args = parse(argv)
  try:
    check(args)
    settings = grid(args.grid) if args.grid else overrides(args.config)
    settings = only(settings, args.only) if args.only else settings
    settings = seeded(settings, args.seeds) if args.seeds else settings
    if args.grid and args.mode == "train":
      check_grid(settings, args)
    matched = match_all(settings, args) if args.match else settings
    code = count_all(matched, args) if args.mode == "count" else run_in(plan(args.config, args.flags, matched), args)
    return code if len(matched) == len(settings) else code or 1
  except (Mistake, OSError) as error:
    print(f"sweep: {error}", file=sys.stderr)
    return 2


def run_in(runs: list[Run], args: argparse.Namespace) -> int:
  """Runs what is not done in --out, which it locks; raises a Mistake where another sweep has it."""
  args.out.mkdir(parents=True, exist_ok=True)
  with open(args.out / LOCK, "a") as lock:
    if not _locks(lock):
      raise Mistake(f"--out: another sweep is running in {args.out}; wait for it, or give another folder")
    return run_all(runs, args)


def check(args: argparse.Namespace) -> None:
  """Raises a Mistake where flags do not fit together."""
  if args.jobs < 1:
    raise Mistake(f"--jobs: {args.jobs}; give at least 1")
  if args.out is None and args.mode == "train":
    raise Mistake("--out is missing; give the folder of all runs")
  if args.json and args.mode != "count":
    raise Mistake("--json is for --mode count; results of runs are in results.jsonl of --out")
  if args.hosts and args.launcher != "ssh":
    raise Mistake(f"--hosts is for --launcher ssh, not {args.launcher}")
  if args.launcher == "ssh":
    launchers.Ssh(args.hosts, ROOT)
  grammar.pairs(",".join(args.slurm))
  if args.slurm and args.launcher != "slurm":
    raise Mistake(f"--slurm is for --launcher slurm, not {args.launcher}")


def check_grid(settings: list[dict[str, Any]], args: argparse.Namespace) -> None:
  """Raises a Mistake where a setting of --grid is none that main.py would run, before any starts."""
  from scripts import match

  models = match.Models(args.config, args.flags)
  wrong: dict[str, str] = {}
  for setting in settings:
    try:
      models.check(setting)
    except Mistake as error:
      wrong.setdefault(match.reason(error), run_name(setting))
  if wrong:
    why, name = next(iter(wrong.items()))
    more = f" (and {len(wrong) - 1} other mistakes)" if len(wrong) > 1 else ""
    raise Mistake(f"--grid: nothing was started, since {name} cannot run: {why}{more}")


def match_all(settings: list[dict[str, Any]], args: argparse.Namespace) -> list[dict[str, Any]]:
  """Returns the settings with the sizes that meet the budget; those that cannot are named and left out.

  Raises:
    Mistake: none can.
  """
  # models take seconds to import, which a sweep without them need not wait for
  from scripts import match

  wanted = match.budget(args.match, args.solve, args.tolerance)
  rows = match.match(match.Models(args.config, args.flags), settings, wanted, args.out)
  # of --json, each line of the output is a setting
  print(match.table(rows, wanted), file=sys.stderr) if args.json else say(match.table(rows, wanted))
  fine = [row for row in rows if not row.reason]
  if not fine:
    raise Mistake(f"--match {args.match}: no setting can be matched; the table says why")
  if len(fine) < len(rows):
    print(f"sweep: {len(rows) - len(fine)} of {len(rows)} settings cannot be matched and are left out", file=sys.stderr)
  return [row.setting | {wanted.key: row.size} for row in fine]


def count_all(settings: list[dict[str, Any]], args: argparse.Namespace) -> int:
  """Prints what each setting counts, or why it cannot be built. Exit code: 1 where one cannot."""
  from scripts import match

  models, rows = match.Models(args.config, args.flags), []
  for setting in settings:
    try:
      line = {"name": run_name(setting), "overrides": setting} | models.counts(setting)
    except Mistake as error:
      line = {"name": run_name(setting), "overrides": setting, "error": match.reason(error)}
    rows.append(line)
    if args.json:
      say(json.dumps(line))
  if not args.json:
    say(match.counted(rows))
  return int(any("error" in row for row in rows))


def make_launcher(args: argparse.Namespace, runs: list[Run]) -> tuple[launchers.Launcher, int]:
  """Returns what starts the runs, and how many are handed to it at once."""
  if args.launcher == "ssh":
    hosts = args.jobs * args.hosts
    return launchers.Ssh(hosts, ROOT), len(hosts)
  if args.launcher == "slurm":
    pairs = dict(grammar.pairs(",".join(args.slurm)))
    parameters = {key: grammar.literal(value, key) for key, value in pairs.items()}
    names = {run.digest for run in runs}
    return launchers.Slurm(args.out.absolute() / "slurm", parameters, at_once=args.jobs, runs=names), len(runs) or 1
  return launchers.Local(), args.jobs


def run_all(runs: list[Run], args: argparse.Namespace) -> int:
  """Runs what is not done, some at once, and says how it ended."""
  launcher, jobs = make_launcher(args, runs)
  sweep = Sweep(args.out.absolute(), runs, args.config.partition(":")[2], args.flags, launcher)
  if others := sweep.others(runs):
    print(f"sweep: {others} lines of {args.out / results.RESULTS} are of other settings; they stay", file=sys.stderr)
  before = {number: signal.signal(number, sweep.stop) for number in ending.SIGNALS}
  try:
    with ThreadPoolExecutor(jobs) as pool:
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
