"""results.jsonl of a sweep: one line a run, replaced as a whole when a run ends."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ending

RESULTS = "results.jsonl"
# what older sweeps, which knew a run by its name, did not write
OLDER: dict[str, Any] = {"digest": "", "folder": "", "argument": "", "flags": [], "origin": ""}
KINDS: dict[str, type] = {"name": str, "overrides": dict, "status": str, "summary": dict, "folder": str}
KINDS |= {key: type(value) for key, value in OLDER.items()}


def read(path: Path) -> list[dict[str, Any]]:
  """Reads the runs of a sweep; those of older sweeps get empty digests.

  A line that is no result, as a full disk leaves behind, is named on standard error: its run does not count as done.
  """
  results, broken = [], []
  for number, line in enumerate(path.read_text(errors="replace").split("\n") if path.is_file() else (), 1):
    if not line.strip():
      continue
    try:
      result = json.loads(line)
    except (ValueError, RecursionError):
      result = None
    if isinstance(result, dict):
      result = OLDER | {"folder": result.get("name"), "status": "failed", "summary": {}} | result
    if isinstance(result, dict) and all(isinstance(result.get(key), kind) for key, kind in KINDS.items()):
      results.append(result)
    else:
      broken.append(number)
  if broken:
    lines = f"line {broken[0]} is" if len(broken) == 1 else f"lines {', '.join(map(str, broken))} are"
    print(f"{path}: {lines} cut short or no result; what ran there does not count as done", file=sys.stderr)
  return results


def write(path: Path, results: Iterable[dict[str, Any]]) -> None:
  """Writes all lines or, where the disk is full, leaves the file as it was."""
  with ending.unfinished(path) as partial:
    partial.write_text("".join(json.dumps(line) + "\n" for line in results))
