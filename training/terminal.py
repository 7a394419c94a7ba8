"""Standard output and error that never end a program: for terminals of few characters, and readers that go away."""

import io
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
