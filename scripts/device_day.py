"""What to do with eight minutes of a GPU: says what it will do, runs it in order of worth, and writes as it goes.

  python -m scripts.device_day --out DIR [--seconds 480] [--only WORD …]     on the GPU; --plan prints and runs nothing
  python -m scripts.device_day --out DIR --toy             a rehearsal on a CPU at toy sizes: two minutes of one core

Every kernel for GPUs is compared with its definition at published sizes, values and gradients, in float32 and bfloat16;
kernels are timed beside XLA's forms and what others have installed (fla-core, jax-linear-attention, mamba-ssm); then
training steps and decoding of Mamba and Mamba-2 130M in bfloat16, without kernels and with them.

DIR/rows.jsonl gets a line for each number as soon as it is there, DIR/summary.json what follows from them. Its part
"proven" is what "auto" may take from now on, type by type, and stands in DIR/proven.json beside what was known: put in
the place of kernels/proven.json, it is what `dispatch` reads. Each part
runs in a process of its own, as a kernel that no GPU has run yet may hang, or end all that its process does on the
device; the next process starts and imports meanwhile. A part that takes longer than its seconds is killed, one for
which no time is left is left out, and both are lines. It compiles all programs anew. Exit code: 1 where a part failed
or a kernel is wrong.
"""

import argparse
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ROWS, SUMMARY, PROVEN = "rows.jsonl", "summary.json", "proven.json"
KERNEL = "pallas_gpu"
# a process has imported everything
READY = {"ready": True}
# on two busy cores a part takes longer
TOY_PATIENCE = 10
# what a kernel has to gain over XLA's form to stay
GAIN = 1.1


class Part(NamedTuple):
  """One thing to do, and the seconds that it may take at most."""

  function: str  # of scripts/benchmarks/device_parts.py
  argument: str
  seconds: float
  why: str

  @property
  def name(self) -> str:
    """Returns how --only, the rows and the plan call it."""
    return f"{self.function} {self.argument}".strip()


# in order of worth: what the largest models need first, and what is right before what is fast
PARTS = (
  Part("check", "Mamba 370M", 60, "selective_scan with all around it, as Mamba calls it"),
  Part("check", "Mamba-2 130M", 60, "ssd on tensor cores, as Mamba-2 calls it"),
  Part("check_steps", "", 45, "a token of Mamba and Mamba-2"),
  Part("train", "mamba2", 90, "what a user gains"),
  Part("train", "mamba", 90, "what a user gains"),
  Part("check", "RG-LRU", 45, "rg_lru, gates inside the scan"),
  Part("check", "RG-LRU's scan", 45, "linear_scan of real decays"),
  Part("check", "S5", 45, "linear_scan of complex decays"),
  Part("time_op", "gated_selective_scan", 60, "beside XLA and others"),
  Part("time_op", "ssd", 60, "beside XLA and others"),
  Part("generate", "mamba2", 60, "decoding, states in place"),
  Part("generate", "mamba", 60, "decoding, states in place"),
  Part("time_op", "rg_lru", 45, "beside XLA and others"),
  Part("time_op", "linear_scan", 45, "beside XLA and others"),
  Part("time_op", "selective_scan", 45, "the scan alone"),
  Part("check", "groups", 45, "selective_scan of two groups with large states"),
  Part("check", "Mamba-2, wide heads", 45, "ssd of heads of 128"),
)


class Worker:
  """A process that imports everything, and waits for the name of a part."""

  def __init__(self, command: Sequence[str]):
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    # errors are lines of this one's, and libraries write there as well
    self.process = subprocess.Popen(
      command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    self.lines: queue.Queue[str | None] = queue.Queue()

  def run(self, part: Part, toy: bool, seconds: float) -> Iterator[dict[str, Any]]:
    """Yields the rows of a part; the last one says why where it did not come to its end.

    Args:
      seconds: from when it has imported everything, for which it has as many.
    """
    assert self.process.stdin is not None, "it was asked for"
    threading.Thread(target=self._read, daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
      print(json.dumps({"function": part.function, "argument": part.argument, "toy": toy}), file=self.process.stdin)
      self.process.stdin.flush()
    end = time.monotonic() + seconds
    try:
      while True:
        try:
          line = self.lines.get(timeout=max(end - time.monotonic(), 0.01))
        except queue.Empty:
          yield {"error": f"killed: it took more than {seconds:.0f} s"}
          return
        if line is None:
          code = self.process.wait()
          if code:
            yield {"error": f"its process ended with code {code}; its messages are above"}
          return
        row = json.loads(line)
        if row == READY:
          end = time.monotonic() + seconds
        else:
          yield row
    finally:
      self.close()

  def _read(self) -> None:
    assert self.process.stdout is not None, "it was asked for"
    for line in self.process.stdout:
      self.lines.put(line)
    self.lines.put(None)

  def close(self) -> None:
    """Ends the process, whatever it does."""
    self.process.kill()
    self.process.wait()


def chosen(words: Sequence[str]) -> list[Part]:
  """Returns the parts whose names have one of the words, or all; raises a SystemExit where there is none."""
  parts = [part for part in PARTS if not words or any(word in part.name for word in words)]
  if not parts:
    sys.exit(f"device_day: no part has {', '.join(words)} in its name; there are {', '.join(p.name for p in PARTS)}")
  return parts


def plan(parts: Sequence[Part], seconds: float) -> str:
  """Returns in words what will be done."""
  lines = [f"{len(parts)} parts in {seconds:.0f} s, in this order, each in its own process:"]
  lines += [f"  {part.name}: {part.why}; at most {part.seconds:.0f} s" for part in parts]
  return "\n".join(lines)


def run(parts: Sequence[Part], out: Path, *, seconds: float, toy: bool, make: Callable[[], Worker]) -> list[dict]:
  """Runs the parts until the time is up, and writes each row as it comes; returns them all."""
  began, rows = time.monotonic(), []
  out.mkdir(parents=True, exist_ok=True)
  with open(out / ROWS, "a") as file:

    def note(part: Part, row: dict[str, Any]) -> None:
      rows.append({"part": part.name, "at": round(time.monotonic() - began, 1), **row})
      print(json.dumps(rows[-1]), file=file, flush=True)
      print(spoken(rows[-1]), flush=True)

    worker: Worker | None = make()
    try:
      for number, part in enumerate(parts):
        left = seconds - (time.monotonic() - began)
        # a part that has a third of its time may end well, and what it wrote before it is killed stays
        if left < part.seconds / 3:
          note(part, {"left_out": f"{left:.0f} s are left"})
          continue
        mine = worker or make()
        worker = make() if number + 1 < len(parts) else None
        for row in mine.run(part, toy, min(part.seconds * (TOY_PATIENCE if toy else 1), left)):
          note(part, row)
    finally:
      if worker is not None:
        worker.close()
  return rows


def spoken(row: dict[str, Any]) -> str:
  """Returns a row for the terminal."""
  head = f"{row['at']:6.1f} s  {row['part']}"
  for key in ("error", "left_out", "missing"):
    if key in row:
      return f"{head}, {row.get('impl', row.get('name', ''))} {key.replace('_', ' ')}: {row[key]}"
  if "ok" in row:
    verdict = "right" if row["ok"] else "WRONG"
    return (
      f"{head}, {row['op']} {row['dtype']} {row['impl']}: {verdict}, off by {row['worst']:.2g} of {row['limit']:.2g}"
    )
  return f"{head}, {row['group']}, {row['name']}: {row['median_ms']:.3g} ms"


def summary(rows: Sequence[dict[str, Any]], toy: bool) -> dict[str, Any]:
  """Returns what follows: which kernels are right, what they gain over XLA's forms, and which parts failed."""
  right: dict[str, bool] = {}
  for row in rows:
    if "ok" in row and row["impl"] != "xla" or toy and "ok" in row:
      key = f"{row['op']} {row['dtype']}"
      right[key] = right.get(key, True) and row["ok"]
  groups: dict[str, dict[str, float]] = {}
  for row in rows:
    if "median_ms" in row:
      groups.setdefault(row["group"], {})[row["name"]] = row["median_ms"]
  gains = {group: gain for group, times in groups.items() if (gain := gained(times)) is not None}
  return {
    "toy": toy,
    "right": right,
    "proven": proven(rows, gains),
    "gain": gains,
    "worth": {group: gain >= GAIN for group, gain in gains.items()},
    "failed": [row["part"] for row in rows if "error" in row],
    "left_out": [row["part"] for row in rows if "left_out" in row],
  }


def proven(rows: Sequence[dict[str, Any]], gains: dict[str, float]) -> dict[str, list[str]]:
  """Returns of each op the types of numbers for which its kernel is right in all that was compared, and worth taking.

  It is worth it where each time of the op alone is, or, for what was timed in models alone, that of each model.
  """
  right: dict[tuple[str, str], bool] = {}
  alone: dict[tuple[str, str], list[float]] = {}
  inside: dict[tuple[str, str], list[float]] = {}
  for row in rows:
    for call in map(tuple, row.get("calls", ())):
      if "ok" in row and row["impl"] == KERNEL:
        right[call] = right.get(call, True) and row["ok"]
      elif row.get("group") in gains:
        (inside if row["name"].startswith("kernels") else alone).setdefault(call, []).append(gains[row["group"]])
  worth = lambda call: min(alone.get(call) or inside.get(call) or [0.0]) >= GAIN
  found: dict[str, list[str]] = {}
  for op, numbers in sorted(call for call, ok in right.items() if ok and worth(call)):
    found.setdefault(op, []).append(numbers)
  return found


def gained(times: dict[str, float]) -> float | None:
  """Returns how many times as fast the kernel is as the fastest of our other forms; None where one is missing."""
  kernel = [ms for name, ms in times.items() if KERNEL in name or name == "kernels on"]
  plain = [ms for name, ms in times.items() if name.startswith(("ours", "kernels off")) and "pallas" not in name]
  return round(min(plain) / kernel[0], 3) if kernel and plain else None


def work() -> None:
  """Waits for a part on standard input, after the imports, and writes its rows to standard output."""
  answers = sys.stdout
  # libraries that print must not be taken for rows
  with contextlib.redirect_stdout(sys.stderr):
    from scripts.benchmarks import device_parts
    from training import platform

    print(json.dumps(READY), file=answers, flush=True)
    line = sys.stdin.readline()
    if not line:
      return
    wanted = json.loads(line)
    platform.prepare()
    arguments = [wanted["argument"]] if wanted["argument"] else []
    for row in device_parts.rows(getattr(device_parts, wanted["function"]), *arguments, wanted["toy"]):
      print(json.dumps(row), file=answers, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
  """Does what there is time for. Exit code: see the module's docstring."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--out", type=Path, default=Path("device_day"))
  parser.add_argument("--seconds", type=float, default=480.0, help="for everything")
  parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="parts whose names have one of them")
  parser.add_argument("--toy", action="store_true", help="a rehearsal at toy sizes, XLA's forms for the kernels")
  parser.add_argument("--plan", action="store_true", help="print what would be done")
  parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  seconds = args.seconds * (TOY_PATIENCE if args.toy else 1)
  if args.worker:
    work()
    return 0
  parts = chosen(args.only)
  print(plan(parts, seconds), flush=True)
  if args.plan:
    return 0
  make = lambda: Worker([sys.executable, "-m", "scripts.device_day", "--worker"])
  found = summary(run(parts, args.out, seconds=seconds, toy=args.toy, make=make), args.toy)
  (args.out / SUMMARY).write_text(json.dumps(found, indent=2))
  known = json.loads((ROOT / "kernels" / PROVEN).read_text())
  ours = known.get(KERNEL, {}) | found["proven"]
  (args.out / PROVEN).write_text(json.dumps(known | ({KERNEL: ours} if ours else {}), indent=2) + "\n")
  print(json.dumps(found, indent=2))
  return 1 if found["failed"] or not all(found["right"].values()) else 0


if __name__ == "__main__":
  sys.exit(main())
