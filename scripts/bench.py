"""Times primitives, mixers and models, beside every installed peer, in one run.

  ./dev bench [--suite mixers,decode,…] [--filter TEXT] [--rounds 7] [--out bench.jsonl]
  ./dev bench --suite claims                 published speed and memory ratios beside those measured here
  ./dev bench --suite kernels --peers all --lengths 512,2048,8192 --plot kernels.png --out kernels.jsonl

Cases of one group do the same work (equal shapes, parameters, dtype and threads). They are compiled first, then timed
in turn, round after round, so that whatever else the machine does falls on all of them alike. Peers run in processes of
their own, with their users' settings; "with our settings" in this one, with our compiler flags and memory. Printed:
median and quartiles in milliseconds, the ratio of medians to ours, for kernels also to a floor made of rates measured
in the same run (scripts/benchmarks/floors.py), and the temporary memory XLA compiled in (peers that do not say: none).
"Ours" is the first row of a group that runs, which is what "auto" takes. One JSON line a case goes to --out.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax
import rich.console
import rich.table

from arguments import Parser
from mistake import Mistake
from scripts.benchmarks import floors, plot
from scripts.benchmarks.case import Case, Missing, Timed
from scripts.peers.gpu_ops import DISTRIBUTIONS
from training import platform as platform_lib

SUITES = ("kernels", "linear_attention", "mixers", "models", "decode", "memory", "claims")


ROUND_SECONDS = 0.02  # calls shorter than that go in a row on an accelerator: starting one takes time, too
# Seconds before each call: torch's threads go on spinning for some milliseconds after theirs, on the cores that the
# next call wants.
PAUSE = 0.01
PATIENCE = 60.0  # seconds that a call of a kernel may take
SMALL, LARGE = {"mib": 128, "side": 1024}, {"mib": 1024, "side": 8192}  # of what measures the device
EMPTY = floors.Rates(0, 0, 0, 0)


def gather(suites: list[str], text: str, **wanted: Any) -> dict[str, list[Case]]:
  """Returns the cases of the named suites, by group; a suite is `scripts/benchmarks/<suite>.py` with `cases()`.

  Args:
    wanted: lengths and peers, of kernels alone.
  """
  groups: dict[str, list[Case]] = {}
  for suite in suites:
    for case in importlib.import_module(f"scripts.benchmarks.{suite}").cases(**wanted if suite == "kernels" else {}):
      if text.lower() in f"{case.group} {case.name}".lower():
        groups.setdefault(f"{suite}: {case.group}", []).append(case)
  return groups


def measure(cases: list[Case], rounds: int, rates: floors.Rates = EMPTY) -> list[dict]:
  """Measures milliseconds of each case over `rounds` interleaved calls, after one warm-up; an absent peer says why."""
  rows: list[dict] = []
  measured: list[tuple[dict, Timed, int, list[float]]] = []
  for case in cases:
    row: dict[str, Any] = {"name": case.name}
    rows.append(row)
    if case.kernel:
      floor, limit = floors.seconds(case.kernel.works, case.kernel.dtype, rates)
      row.update(panel=case.kernel.panel, length=case.kernel.length, floor_ms=floor * 1e3, limit=limit)
    try:
      timed, calls, compile_s = prepare(case)
    except Missing as e:
      row["missing"] = str(e)
      continue
    row.update(temp_mib=timed.temp_mib, unit=timed.unit, compile_s=compile_s, calls=calls)
    measured.append((row, timed, calls, []))
  for _ in range(rounds):
    for _, timed, calls, seconds in measured:
      time.sleep(PAUSE)
      seconds.append(once(timed, calls))
  for row, timed, _, seconds in measured:
    row.update(figures(timed, seconds))
    if "floor_ms" in row:
      row["floor_ratio"] = row["median_ms"] / row["floor_ms"]
  return rows


def prepare(case: Case) -> tuple[Timed, int, float]:
  """Returns the call to time, how often to call it in a row, and the seconds of compiling and the first call.

  Raises:
    Missing: it is not here, does not fit, or takes longer than a minute.
  """
  start = time.perf_counter()
  try:
    timed = case.make()
    first = once(timed, 1)
  except jax.errors.JaxRuntimeError as e:
    if "RESOURCE_EXHAUSTED" not in str(e):
      raise
    raise Missing("does not fit: the device's memory ran out") from e
  compile_s = time.perf_counter() - start
  if case.kernel and first > PATIENCE:
    raise Missing(f"left out: one call takes {first:.0f} s")
  in_a_row = timed.many is not None and jax.default_backend() != "cpu"
  return timed, min(100, round(ROUND_SECONDS / once(timed, 1)) or 1) if in_a_row else 1, compile_s


def once(timed: Timed, calls: int) -> float:
  """Returns the seconds of a call; only the last of several is waited for."""
  start = time.perf_counter()
  if timed.many is None or calls == 1:
    timed.call()
  else:
    timed.many(calls)
  return (time.perf_counter() - start) / calls


def figures(timed: Timed, seconds: list[float]) -> dict:
  """Returns median, quartiles and range; a case with `per_call` units of work (tokens) also gets its rate."""
  milliseconds = [s * 1e3 for s in seconds]
  # a single number has no quartiles
  q1, median, q3 = statistics.quantiles(milliseconds * (1 + (len(seconds) == 1)), n=4, method="inclusive")
  row = {"median_ms": median, "q1_ms": q1, "q3_ms": q3, "min_ms": min(milliseconds), "max_ms": max(milliseconds)}
  if timed.per_call:
    row["per_s"] = timed.per_call / median * 1e3
  return row


def show(group: str, rows: list[dict], console: rich.console.Console) -> None:
  """Prints one group as a table, and adds each row's ratio to ours."""
  floor = next((f", floor {r['floor_ms']:.3g} ms ({r['limit']})" for r in rows if "floor_ms" in r), "")
  table = rich.table.Table(title=group + floor, title_justify="left", show_edge=False)
  for column in ("", "median ms", "quartiles ms", "ratio to ours", "to floor", "per second", "temp MiB", "compile s"):
    table.add_column(column, justify="left" if not column else "right")
  ours = next((r["median_ms"] for r in rows if r["name"].startswith("ours") and "median_ms" in r), None)
  for r in rows:
    if "missing" in r:
      table.add_row(r["name"], "–")
      continue
    if ours:
      r["ratio"] = r["median_ms"] / ours
    temp = "–" if r["temp_mib"] is None else f"{r['temp_mib']:.1f}"
    table.add_row(
      r["name"],
      f"{r['median_ms']:.3g}",
      f"{r['q1_ms']:.3g}–{r['q3_ms']:.3g}",
      f"{r.get('ratio', 1):.2f}×",
      f"{r['floor_ratio']:.2f}×" if "floor_ratio" in r else "",
      f"{r['per_s']:.0f} {r['unit']}" if "per_s" in r else "",
      temp,
      f"{r['compile_s']:.1f}",
    )
  console.print(table)
  for r in rows:
    if "missing" in r:
      console.print(f"{r['name']}: {r['missing']}", highlight=False)
  console.print()


def machine() -> dict:
  """Describes the machine and the software that the numbers were measured on."""
  return {
    "device": jax.devices()[0].device_kind,
    "cores": os.cpu_count(),
    "machine": platform.machine(),
    "python": platform.python_version(),
    "jax": jax.__version__,
    "xla_flags": os.environ["XLA_FLAGS"].strip(),
    "date": time.strftime("%Y-%m-%d"),
  }


def main(argv: list[str] | None = None) -> int:
  """Times what the arguments ask for. Exit code: 0, or 2 for a mistake in them."""
  parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--suite", default=",".join(SUITES), help=f"comma separated, of {', '.join(SUITES)}")
  parser.add_argument("--filter", default="", help="only cases whose group or name contains this text")
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--devices", type=int, default=0, help="virtual CPU devices; 0 leaves the CPU one device")
  parser.add_argument("--out", default="", help="file that gets one JSON line a case")
  parser.add_argument("--peers", default="", help=f"beside kernels: all, or of {', '.join(DISTRIBUTIONS)}")
  parser.add_argument("--lengths", default="", help="of the sequences kernels run on, e.g. 512,2048,8192")
  parser.add_argument("--plot", default="", help="picture of the kernels' times against length, with their floors")
  args = parser.parse_args(argv)
  try:
    check(args)
    suites = args.suite.split(",")
    wanted = of_kernels(args.peers, args.lengths)
    if "kernels" not in suites and (args.peers or args.lengths or args.plot):
      raise Mistake("--peers, --lengths and --plot are for --suite kernels")
    # peers in processes of their own want memory of the same device
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    platform_lib.prepare(args.devices)  # as training does: compiler flags, memory, devices
    run(gather(suites, args.filter, **wanted), args.rounds, args.out, args.plot)
  except (Mistake, OSError) as error:
    print(f"bench: {error}", file=sys.stderr)
    return 2
  return 0


def check(args: argparse.Namespace) -> None:
  """Raises a Mistake where an argument cannot be, before anything is timed."""
  if unknown := sorted(set(args.suite.split(",")) - set(SUITES)):
    raise Mistake(f"no suite {', '.join(unknown)}; choose from {', '.join(SUITES)}")
  for name, value, least in (("rounds", args.rounds, 1), ("devices", args.devices, 0)):
    if value < least:
      raise Mistake(f"--{name}={value}; give at least {least}")
  for name, path in (("out", args.out), ("plot", args.plot)):
    if path and (Path(path).is_dir() or not Path(path).absolute().parent.is_dir()):
      raise Mistake(f"--{name}={path}: give the name of a file, in a folder that exists")


def of_kernels(peers: str, lengths: str) -> dict[str, tuple]:
  """Returns the arguments of `scripts.benchmarks.kernels.cases`.

  Raises:
    Mistake: a text names none.
  """
  names = DISTRIBUTIONS if peers == "all" else tuple(filter(None, peers.split(",")))
  if unknown := sorted(set(names) - set(DISTRIBUTIONS)):
    raise Mistake(f"no peer {', '.join(unknown)}; choose from all, {', '.join(DISTRIBUTIONS)}")
  if wrong := [text for text in filter(None, lengths.split(",")) if not text.isdecimal() or int(text) < 1]:
    raise Mistake(f"--lengths has {', '.join(wrong)}; it takes positive numbers separated by commas")
  return {"peers": names, "lengths": tuple(int(text) for text in filter(None, lengths.split(",")))}


def run(groups: dict[str, list[Case]], rounds: int, out: str, picture: str) -> None:
  """Times group after group; each is printed, and written, as soon as it is done."""
  kernels = any(case.kernel for cases in groups.values() for case in cases)
  if picture and not kernels:
    raise Mistake("no kernel to plot; see --filter")
  console = rich.console.Console(width=140)
  where, rates = machine(), EMPTY
  if kernels:
    rates = floors.measure(**SMALL if jax.default_backend() == "cpu" else LARGE)
    where.update({f"{name}_per_s": f"{rate:.4g}" for name, rate in rates._asdict().items()})
  console.print(" · ".join(f"{k} {v}" for k, v in where.items()), "")
  done: list[dict] = []
  for group, cases in groups.items():
    rows = measure(cases, rounds, rates)
    show(group, rows, console)
    done += rows
    if out:
      with open(out, "a") as f:
        f.writelines(json.dumps({"group": group, **row, **where}) + "\n" for row in rows)
  if picture:
    plot.draw(done, picture)


if __name__ == "__main__":
  sys.exit(main())
