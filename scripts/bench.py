"""Times primitives, mixers and models, beside every installed peer, in one run.

  python scripts/bench.py [--suite mixers,decode,…] [--filter TEXT] [--rounds 7] [--out bench.jsonl]

Cases of one group do the same work (equal shapes, parameters, dtype and threads). They are compiled first, then timed
in turn, round after round, so that whatever else the machine does falls on all of them alike. Peers run in processes of
their own, with their users' settings; "with our settings" in this one, with our compiler flags and memory. Printed:
median and range in milliseconds, the ratio of medians to ours, and the temporary memory XLA compiled in (peers that do
not say: a dash).
One JSON line a case goes to --out.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import sys
import time
from typing import Any

import jax
import rich.console
import rich.table

from scripts.benchmarks.case import Case, Missing, Timed
from training import platform as platform_lib

SUITES = ("kernels", "linear_attention", "mixers", "models", "decode", "memory")


def gather(suites: list[str], text: str) -> dict[str, list[Case]]:
  """The cases of the suites named, by group; a suite is `scripts/benchmarks/<suite>.py` with a function `cases()`."""
  groups: dict[str, list[Case]] = {}
  for suite in suites:
    for case in importlib.import_module(f"scripts.benchmarks.{suite}").cases():
      if text.lower() in f"{case.group} {case.name}".lower():
        groups.setdefault(f"{suite}: {case.group}", []).append(case)
  return groups


def measure(cases: list[Case], rounds: int) -> list[dict]:
  """Milliseconds of each case over `rounds` interleaved calls, after one warm-up; cases of absent peers say why."""
  rows: list[dict] = []
  live: list[tuple[dict, Timed, list[float]]] = []
  for case in cases:
    row: dict[str, Any] = {"name": case.name}
    rows.append(row)
    start = time.perf_counter()
    try:
      timed = case.make()
    except Missing as e:
      row["missing"] = str(e)
      continue
    timed.call()
    row.update(temp_mib=timed.temp_mib, unit=timed.unit, compile_s=time.perf_counter() - start)
    live.append((row, timed, []))
  for _ in range(rounds):
    for _, timed, seconds in live:
      start = time.perf_counter()
      timed.call()
      seconds.append(time.perf_counter() - start)
  for row, timed, seconds in live:
    row.update(figures(timed, seconds))
  return rows


def figures(timed: Timed, seconds: list[float]) -> dict:
  """Median and range; a case with `per_call` units of work (tokens) also gets its rate."""
  row = {"median_ms": statistics.median(seconds) * 1e3, "min_ms": min(seconds) * 1e3, "max_ms": max(seconds) * 1e3}
  if timed.per_call:
    row["per_s"] = timed.per_call / statistics.median(seconds)
  return row


def show(group: str, rows: list[dict], console: rich.console.Console) -> None:
  """Prints one group as a table, and adds each row's ratio to ours."""
  table = rich.table.Table(title=group, title_justify="left", show_edge=False)
  for column in ("", "median ms", "range ms", "ratio to ours", "per second", "temp MiB", "compile s"):
    table.add_column(column, justify="left" if not column else "right")
  ours = next((r["median_ms"] for r in rows if r["name"].startswith("ours") and "median_ms" in r), None)
  for r in rows:
    if "missing" in r:
      table.add_row(r["name"], r["missing"])
      continue
    if ours:
      r["ratio"] = r["median_ms"] / ours
    temp = "–" if r["temp_mib"] is None else f"{r['temp_mib']:.1f}"
    rate = f"{r['per_s']:.0f} {r['unit']}" if "per_s" in r else ""
    span = f"{r['min_ms']:.1f}–{r['max_ms']:.1f}"
    table.add_row(
      r["name"], f"{r['median_ms']:.2f}", span, f"{r.get('ratio', 1):.2f}×", rate, temp, f"{r['compile_s']:.1f}"
    )
  console.print(table, "")


def machine() -> dict:
  """What the numbers were measured on."""
  return {
    "device": jax.devices()[0].device_kind,
    "cores": os.cpu_count(),
    "machine": platform.machine(),
    "python": platform.python_version(),
    "jax": jax.__version__,
    "xla_flags": os.environ["XLA_FLAGS"].strip(),
    "date": time.strftime("%Y-%m-%d"),
  }


def main(argv: list[str] | None = None) -> None:
  """Times what the arguments ask for."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--suite", default=",".join(SUITES), help=f"comma separated, of {', '.join(SUITES)}")
  parser.add_argument("--filter", default="", help="only cases whose group or name contains this text")
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--devices", type=int, default=0, help="virtual CPU devices; 0 leaves the CPU one device")
  parser.add_argument("--out", default="", help="file that gets one JSON line a case")
  args = parser.parse_args(argv)
  suites = args.suite.split(",")
  if unknown := sorted(set(suites) - set(SUITES)):
    sys.exit(f"bench: no suite {', '.join(unknown)}; choose from {', '.join(SUITES)}")
  platform_lib.prepare(args.devices)  # as training does: compiler flags, memory, devices
  console = rich.console.Console(width=140)
  where = machine()
  console.print(" · ".join(f"{k} {v}" for k, v in where.items()), "")
  for group, cases in gather(suites, args.filter).items():
    rows = measure(cases, args.rounds)
    show(group, rows, console)
    if args.out:
      with open(args.out, "a") as f:
        f.writelines(json.dumps({"group": group, **row, **where}) + "\n" for row in rows)


if __name__ == "__main__":
  main()
