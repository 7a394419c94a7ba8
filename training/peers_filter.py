"""Copies its input to its output, but what JAX writes when another process of a run is gone becomes one line.

A program of its own, see training/peers.py: what an aborting process has written last must still be read.
"""

import re
import signal
import sys
from collections.abc import Iterable, Iterator

# the lines that a C++ library of JAX's starts with level, date, time and thread
RECORD = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ ([\w.]+):\d+\] (.*)")
SOURCES = ("coordination_service", "preemption_sync_manager", "client.h")
END = "Terminating process because the JAX distributed service detected fatal errors"
OURS = ("error: ", "stopped by ")


def message(reason: str) -> str:
  """Returns the line that says that another process is gone."""
  short = " ".join(reason.split())
  short = short if len(short) < 120 else f"{short[:120]} …"
  return (
    "error: another process of this run has died or cannot be reached; its own output says why. Start all of them "
    f"again: they go on at the last save ({short})"
  )


def filtered(lines: Iterable[str]) -> Iterator[str]:
  """Drops the records of JAX's coordination with the lines that belong to them. The fatal one becomes the message.

  The message comes once, be it from here or from the process itself.
  """
  start = message("")[:40]
  dropping = said = False
  for line in lines:
    record = RECORD.match(line)
    if record:
      dropping = record[1].startswith(SOURCES)
      if dropping and record[2].startswith(END) and not said:
        said = True
        yield message(record[2].partition("absl::Status: ")[2] or "no heartbeat") + "\n"
    elif line.startswith(OURS):
      dropping = said and line.startswith(start)
      said = said or line.startswith(start)
    if not dropping:
      yield line


if __name__ == "__main__":
  # it ends with the process that writes to it, whatever is sent to the whole group
  for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
  sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
  sys.stdout.reconfigure(errors="surrogateescape", line_buffering=True)  # type: ignore[union-attr]
  for text in filtered(sys.stdin):
    sys.stdout.write(text)
