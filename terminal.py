"""Standard streams that never end a program: terminals of few characters, readers that go away, closed ones.

It comes before libraries whose import takes seconds, so it imports the standard library alone.
"""

import io
import os
import sys
from typing import Any


class Unread(io.FileIO):
  """A file that drops what is written once nobody reads it any longer, as after `| head`, or that a full disk refuses.

  Attributes:
    lost: why something could not be written; None where it was, or where nobody reads.
  """

  lost: str | None = None

  def write(self, data: Any) -> int:
    """Writes the data; where that fails, the data are dropped and reported as written."""
    try:
      return super().write(data)
    except BrokenPipeError:
      return len(data)
    except OSError as error:
      self.lost = error.strerror or str(error)
      return len(data)


def lost() -> str | None:
  """Returns why a part of the standard output could not be written, such as a full disk; None where all was."""
  sys.stdout.flush()
  return getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "lost", None)


def open_streams() -> None:
  """Opens /dev/null in place of standard streams that are closed, whose numbers would go to the next files opened.

  What libraries print to such a number would be in the middle of a checkpoint.
  """
  for number, name in enumerate(("stdin", "stdout", "stderr")):
    try:
      os.fstat(number)
    except OSError:
      # the lowest free number is taken, which is this one
      os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if getattr(sys, name) is None:
      setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", closefd=False))


def exit_code(status: int | None, program: str) -> int:
  """Returns a program's status; or 2, and says why in one line, where a part of its output could not be written."""
  if not status and (reason := lost()):
    print(f"{program}: standard output cannot be written ({reason}); a part of it is lost", file=sys.stderr)
    return 2
  return status or 0


def settle() -> None:
  """Makes both streams write question marks for characters their encoding lacks, and outlive their readers and disks.

  Bytes of the standard input that are no UTF-8 are kept, as they are in arguments.
  """
  if isinstance(sys.stdin, io.TextIOWrapper):
    sys.stdin.reconfigure(errors="surrogateescape")
  for name in ("stdout", "stderr"):
    stream = getattr(sys, name)
    if isinstance(stream, io.TextIOWrapper):
      stream.flush()
      raw: io.RawIOBase = Unread(stream.fileno(), "wb", closefd=False)
      settled = io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, "replace", line_buffering=stream.line_buffering
      )
      setattr(sys, name, settled)
