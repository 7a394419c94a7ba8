"""Standard output and error that never end a program: for terminals of few characters, and readers that go away."""

import io
import sys
from typing import Any


class Unread(io.FileIO):
  """A file that drops what is written once nobody reads it any longer, as after `| head`."""

  def write(self, data: Any) -> int:
    """Writes the data; where the pipe is broken, the data are dropped and reported as written."""
    try:
      return super().write(data)
    except BrokenPipeError:
      return len(data)


def settle() -> None:
  """Makes both streams write question marks for characters their encoding lacks, and outlive their readers."""
  for name in ("stdout", "stderr"):
    stream = getattr(sys, name)
    if isinstance(stream, io.TextIOWrapper):
      stream.flush()
      raw: io.RawIOBase = Unread(stream.fileno(), "wb", closefd=False)
      settled = io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, "replace", line_buffering=stream.line_buffering
      )
      setattr(sys, name, settled)
