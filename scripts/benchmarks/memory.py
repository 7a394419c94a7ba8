"""Temporary memory of the selective scan's gradient against length: it must grow with L / chunk, not with L N."""

from scripts.benchmarks.case import Case
from scripts.benchmarks.kernels import selective


def cases() -> list[Case]:
  rows = [case for length in (512, 1024, 2048, 4096) for case in selective(batch=1, length=length, inner=512)]
  return [case for case in rows if "backward" in case.group]
