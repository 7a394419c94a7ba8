"""Temporary memory of the selective scan's gradient against length: it must grow with L / chunk, not with L N."""

from scripts.benchmarks.case import Case
from scripts.benchmarks.kernels import one


def cases() -> list[Case]:
  rows = [
    case for t in (512, 1024, 2048, 4096) for case in one("selective_scan", dict(b=1, t=t, e=512, n=16, g=1), "float32")
  ]
  return [case for case in rows if "backward" in case.group]
