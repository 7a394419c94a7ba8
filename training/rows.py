"""The files that rows of metrics go to, which neither stop a run nor lose a row when the disk is full."""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from mistake import Mistake
from training.workdir import write_text


class Rows:
  """A file of JSON lines. Rows that cannot be written wait in memory, and are written with a later one.

  Attributes:
    last: the step of the newest checkpoint. Rows of later steps, written by a process that was killed before it saved
      them, are dropped; so is a line cut short. Where there are none, the file stays as it is.
  """

  def __init__(self, path: Path, *, last: int):
    if path.exists() and not path.is_file():
      raise Mistake(f"{path} is no plain file, which rows of metrics could be added to; move it away")
    kept = [row for row in read_rows(path) if row["step"] <= last]
    whole = "".join(json.dumps(row) + "\n" for row in kept)
    if path.exists() and path.read_text(errors="replace") != whole:
      write_text(path, whole)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    self._file: IO[bytes] = os.fdopen(os.open(path, flags, 0o644), "r+b", buffering=0)
    self._waiting: list[bytes] = []
    self._warned = False

  def write(self, row: Mapping[str, Any]) -> None:
    """Appends a row, after the rows that wait in memory."""
    self._waiting.append((json.dumps(dict(row)) + "\n").encode())
    while self._waiting:
      whole = os.fstat(self._file.fileno()).st_size
      try:
        written = self._file.write(self._waiting[0])
        if written != len(self._waiting[0]):
          raise OSError(28, "No space left on device")
      except OSError as error:
        self._file.truncate(whole)
        self._warn(error)
        return
      del self._waiting[0]

  def close(self) -> None:
    """Closes the file."""
    self._file.close()

  def _warn(self, error: OSError) -> None:
    if not self._warned:
      print(f"warning: rows of metrics wait in memory, they cannot be written: {error.strerror}", file=sys.stderr)
    self._warned = True


class Events:
  """TensorBoard's copy of the rows, written at once, without the thread whose queue blocks when the disk is full.

  Attributes:
    first: step from which on TensorBoard forgets what earlier processes of the run have written; None forgets nothing.
  """

  def __init__(self, folder: Path, *, first: int | None):
    # with protobuf it takes a tenth of a second to import, which only a run with a folder should wait for
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    self._writer: EventsWriter | None = None
    try:
      folder.mkdir(exist_ok=True)
      self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}")
      if first is not None:
        self._writer.write_event(Event(wall_time=time.time(), step=first, session_log=SessionLog(status=1)))
        self._writer.flush()
    except OSError as error:
      self._stop(error)

  def write(self, step: int, row: Mapping[str, float]) -> None:
    """Writes a row. After an error, which is printed once, no more are written: the rows are in the other file."""
    if self._writer is None:
      return
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=key, simple_value=value) for key, value in row.items()]
    try:
      self._writer.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
      self._writer.flush()
    except OSError as error:
      self._stop(error)

  def close(self) -> None:
    """Closes the file."""
    if self._writer is not None:
      try:
        self._writer.close()
      except OSError as error:
        self._stop(error)

  def _stop(self, error: OSError) -> None:
    self._writer = None
    print(f"warning: no more TensorBoard events, they cannot be written: {error.strerror}", file=sys.stderr)


def read_rows(path: Path) -> list[dict[str, Any]]:
  """Reads the rows of a metrics file, without a last line that a kill cut short."""
  rows = []
  # a pipe would be waited for
  for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
    try:
      row = json.loads(line)
    except (ValueError, RecursionError):
      continue
    if isinstance(row, dict) and isinstance(row.get("step"), int):
      rows.append(row)
  return rows
