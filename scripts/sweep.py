"""Runs every setting of a config's `get_sweep()`, several at once if asked, each by main.py in a folder of its own.

  python scripts/sweep.py --config configs/mqar.py[:key=value,…] --out DIR [--jobs N] [-- --config.a.b=v …]

DIR/NAME is the workdir of the run NAME (its overrides), DIR/NAME/log.txt what it printed, DIR/results.jsonl one line a
run: name, overrides, status, exit code, seconds, the run's summary, and its last line of output if it failed. The same
command again skips what is done and resumes the rest. A failed run stops nothing; it makes the exit code 1.
"""

import argparse
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mistake import Mistake

ROOT = Path(__file__).resolve().parents[1]
RESULTS, LOG, SUMMARY = "results.jsonl", "log.txt", "summary.json"


def overrides(config: str) -> list[dict[str, Any]]:
  """The override dicts of a config file (an argument after its colon is main.py's matter).

  Raises:
    ValueError: no such file, no `get_sweep` in it, or one that gives nothing or the same setting twice.
  """
  path = Path(config.partition(":")[0])
  if not path.is_file():
    raise Mistake(f"--config: {path} does not exist")
  module = runpy.run_path(str(path))
  if "get_sweep" not in module:
    raise Mistake(f"--config: {path} has no get_sweep(); add one that yields dicts like dict(mixer='s5', lr=1e-3)")
  found = [dict(each) for each in module["get_sweep"]()]
  names = [run_name(each) for each in found]
  if not found or len(set(names)) < len(names):
    twice = sorted({name for name in names if names.count(name) > 1})
    raise Mistake(f"--config: get_sweep() of {path} gives " + (f"{twice} more than once" if found else "nothing"))
  return found


def run_name(setting: Mapping[str, Any]) -> str:
  """The folder of a run: its overrides, with what a file system may not like replaced."""
  return re.sub(r"[^A-Za-z0-9=.,+-]", "_", argument(setting)) or "default"


def argument(setting: Mapping[str, Any]) -> str:
  """`{'mixer': 's5', 'lr': 0.001}` -> `mixer=s5,lr=0.001`, as config files take it.

  Raises:
    ValueError: a text contains a comma, which separates pairs; tuples are safe in their brackets.
  """
  for key, value in setting.items():
    if isinstance(value, str) and "," in value:
      raise Mistake(f"sweep: {key}={value!r} contains a comma; a text in the argument string cannot")
  return ",".join(f"{key}={value}" for key, value in setting.items())


class Sweep:
  """The runs of one sweep and the file of their results."""

  def __init__(self, config: str, out: Path, extra: list[str]):
    self._config, self._out, self._extra = config, out, extra
    self._lock = threading.Lock()
    self._running: set[subprocess.Popen] = set()
    self._stopped = False
    self.results = read_results(out / RESULTS)

  def run(self, setting: dict[str, Any]) -> None:
    """One run, unless it is done already; its line is written when it ends."""
    name = run_name(setting)
    if self._stopped or self.results.get(name, {}).get("status") == "done":
      return
    workdir = self._out / name
    workdir.mkdir(parents=True, exist_ok=True)
    began = time.time()
    with open(workdir / LOG, "a") as log:
      code = self._main(setting, workdir, log)
    status = "done" if code == 0 else "interrupted" if self._stopped else "failed"
    result = {"name": name, "overrides": setting, "status": status, "exit": code}
    result |= {"seconds": round(time.time() - began, 1), "summary": _json(workdir / SUMMARY) if code == 0 else {}}
    if status == "failed":
      result["error"] = _last_line(workdir / LOG)
    self._record(result)

  def _main(self, setting: dict[str, Any], workdir: Path, log: Any) -> int:
    base, _, given = self._config.partition(":")
    config = f"{base}:{','.join(filter(None, (given, argument(setting))))}"
    command = [sys.executable, str(ROOT / "main.py"), "--config", config, "--workdir", str(workdir), *self._extra]
    with self._lock:
      if self._stopped:
        return -signal.SIGTERM
      process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
      self._running.add(process)
    code = process.wait()
    with self._lock:
      self._running.discard(process)
    return code

  def _record(self, result: dict[str, Any]) -> None:
    with self._lock:
      self.results[result["name"]] = result
      path = self._out / RESULTS
      temporary = path.with_suffix(".tmp")
      temporary.write_text("".join(json.dumps(line) + "\n" for line in self.results.values()))
      os.replace(temporary, path)
      print(json.dumps(result), flush=True)

  def stop(self, *_: Any) -> None:
    """Starts no more runs, and lets those that are running save and end."""
    # signal handlers run in the main thread, which never holds the lock itself
    with self._lock:
      self._stopped = True
      for process in self._running:
        process.terminate()


def read_results(path: Path) -> dict[str, dict[str, Any]]:
  """What was run, by name."""
  lines = path.read_text().splitlines() if path.exists() else []
  return {result["name"]: result for result in map(json.loads, lines)}


def _json(path: Path) -> dict[str, Any]:
  return json.loads(path.read_text()) if path.exists() else {}


def _last_line(path: Path) -> str:
  lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
  return lines[-1] if lines else "it printed nothing"


def parse(argv: list[str] | None) -> argparse.Namespace:
  """The command line; what follows `--` is passed on to main.py."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--config", required=True, help="config file with a get_sweep(), as main.py takes it")
  parser.add_argument("--out", required=True, type=Path, help="folder of all runs")
  parser.add_argument("--jobs", type=int, default=1, help="runs at once")
  parser.add_argument("extra", nargs="*", help="further flags of main.py, after --")
  return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
  """Runs what is not done. Exit code: 0 all done, 1 some failed, 2 wrong arguments, 75 interrupted."""
  args = parse(argv)
  try:
    if args.jobs < 1:
      raise Mistake(f"--jobs: {args.jobs}; give at least 1")
    settings = overrides(args.config)
    for setting in settings:
      argument(setting)
  except ValueError as error:
    print(f"sweep: {error}", file=sys.stderr)
    return 2
  args.out.mkdir(parents=True, exist_ok=True)
  sweep = Sweep(args.config, args.out.absolute(), args.extra)
  before = {number: signal.signal(number, sweep.stop) for number in (signal.SIGINT, signal.SIGTERM)}
  with ThreadPoolExecutor(args.jobs) as pool:
    for future in [pool.submit(sweep.run, setting) for setting in settings]:
      future.result()
  for number, handler in before.items():
    signal.signal(number, handler)
  statuses = [sweep.results.get(run_name(setting), {}).get("status") for setting in settings]
  done = statuses.count("done")
  failed = [run_name(setting) for setting, status in zip(settings, statuses) if status == "failed"]
  print(
    f"sweep: {done} of {len(settings)} runs done, failed: {failed or 'none'}; {args.out / RESULTS}", file=sys.stderr
  )
  return 0 if done == len(settings) else 1 if failed else 75


if __name__ == "__main__":
  sys.path.insert(0, str(ROOT))
  sys.exit(main())
