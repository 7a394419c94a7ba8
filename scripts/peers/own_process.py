"""Peers in a process of their own, with the settings their users have.

In the process of `scripts/bench.py` a peer would get this project's compiler flags, and glibc would keep freed memory
for it, which alone makes torch twice as fast. Here it gets neither, and is timed in the same rounds as the others: the
parent asks for calls by a line on the worker's standard input that says how many, and waits for one on its output.

  python -m scripts.peers.own_process MODULE:FUNCTION JSON     what `own_process` starts
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

from scripts.benchmarks.case import Missing, Timed

ROOT = Path(__file__).resolve().parents[2]
# what `training.platform.prepare` may have set
OURS = ("XLA_FLAGS", "NPROC", "JAX_NUM_CPU_DEVICES", "OPENBLAS_NUM_THREADS")


def own_process(target: str, **kwargs: Any) -> Timed:
  """Returns the Timed of `MODULE:FUNCTION(**kwargs)`, run in a process of its own.

  Raises:
    Missing: it is in the worker, or the worker does not live.
  """
  worker = subprocess.Popen(
    [sys.executable, "-m", "scripts.peers.own_process", target, json.dumps(kwargs)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    cwd=ROOT,
    env={name: value for name, value in os.environ.items() if name not in OURS},
  )
  facts = _answer(worker, target)
  if "missing" in facts:
    raise Missing(facts["missing"])

  def many(calls):
    print(calls, file=worker.stdin, flush=True)
    return _answer(worker, target)

  weakref.finalize(many, worker.kill)
  return Timed(lambda: many(1), facts["temp_mib"], facts["per_call"], facts["unit"], many if facts["many"] else None)


def _answer(worker: subprocess.Popen, target: str) -> dict:
  line = next(iter(worker.stdout or ()), "")
  if not line:
    raise Missing(f"{target} ended with code {worker.wait()}; its messages are above")
  return json.loads(line)


def work(target: str, kwargs: dict[str, Any]) -> None:
  """Makes the Timed and calls it, which shows what memory that takes; then calls it as often as each line says."""
  answers = sys.stdout
  module, name = target.split(":")
  # libraries that print must not be taken for answers
  with contextlib.redirect_stdout(sys.stderr):
    try:
      timed = getattr(importlib.import_module(module), name)(**kwargs)
    except Missing as error:
      print(json.dumps({"missing": str(error)}), file=answers, flush=True)
      return
    before = _resident_mib("VmRSS")
    timed.call()
    if timed.temp_mib is None:
      # what XLA knows from compiling, others show by how far the process grew
      timed = timed._replace(temp_mib=max(0.0, _resident_mib("VmHWM") - before))
    print(json.dumps(dict(timed._asdict(), call=None, many=timed.many is not None)), file=answers, flush=True)
    for line in sys.stdin:
      timed.call() if timed.many is None else timed.many(int(line))
      print("{}", file=answers, flush=True)


def _resident_mib(field: str) -> float:
  """Reads a memory field of this process alone; getrusage's maximum may be that of the parent, where that is larger."""
  line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
  return int(line.split()[1]) / 2**10


if __name__ == "__main__":
  work(sys.argv[1], json.loads(sys.argv[2]))
