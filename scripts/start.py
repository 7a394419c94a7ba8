"""Starts a script so that a signal, a reader that goes away or a full disk ends it in one line.

  python scripts/start.py NAME [ARGS]      as ./dev does; NAME is a module of scripts/ with a function main(arguments)

Exit codes: the script's; 130 after Ctrl-C, and 128 with its number after another signal.
"""

import importlib
import sys
from pathlib import Path

# the folder of this file has names that others have, too
sys.path[0] = str(Path(__file__).resolve().parents[1])

import ending  # noqa: E402
import terminal  # noqa: E402

if __name__ == "__main__":
  # before the imports, which take seconds
  ending.begin()


def main(name: str, arguments: list[str]) -> int:
  """Runs a script and returns its exit code."""
  try:
    status = importlib.import_module(f"scripts.{name}").main(arguments)
  except Exception as error:
    if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
      raise
    print(f"{name}: not enough memory; give less to do at once", file=sys.stderr)
    status = 2
  return terminal.exit_code(status, name)


if __name__ == "__main__":
  sys.argv = sys.argv[1:]
  sys.exit(main(sys.argv[0], sys.argv[1:]))
