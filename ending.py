"""Ends a program on a signal: in one line, without a traceback, and with nothing half-written left behind.

It comes before libraries whose import takes seconds, so it imports the standard library and `terminal` alone.
"""

import contextlib
import itertools
import os
import shutil
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import terminal

# clusters send USR1 or HUP some time before they kill
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
INTERRUPTED = 130
# seconds that the processes of a pool have to delete what they were writing
GRACE = 2.0
PRIVATE = 0o600

_code: int | None = None
_quiet = False
_process = 0
_unfinished: set[Path] = set()
_numbers = itertools.count()


def begin(code: int | None = None) -> None:
  """Prepares a program before its imports: its standard streams, see `terminal`, and signals, see `on_signals`."""
  terminal.open_streams()
  terminal.settle()
  on_signals(code)


def on_signals(code: int | None = None, *, quiet: bool = False) -> None:
  """Ends this process on every signal of SIGNALS from here on; one that is ignored, as under nohup, stays so.

  Args:
    code: the exit code, but for Ctrl-C, whose code is 130; by default 128 and the signal's number.
    quiet: says nothing, as the process that started this one does.
  """
  global _code, _quiet, _process
  _code, _quiet, _process = code, quiet, os.getpid()
  for kind in SIGNALS:
    if signal.getsignal(kind) is not signal.SIG_IGN:
      signal.signal(kind, end)


def end(number: int, _frame: Any) -> None:
  """Deletes what is half-written, ends the processes of pools, says so in one line, and ends this process."""
  code = INTERRUPTED if number == signal.SIGINT else _code or 128 + number
  if os.getpid() != _process:
    # a fork, to which nothing here belongs
    os._exit(code)
  for kind in SIGNALS:
    signal.signal(kind, signal.SIG_IGN)
  pools = sys.modules.get("multiprocessing")
  children = pools.active_children() if pools else []
  for child in children:
    child.terminate()
  for child in children:
    child.join(GRACE)
  for path in list(_unfinished):
    _delete(path)
  if not _quiet:
    # not by print, which may be in the middle of another line; nobody may read it, or the disk be full
    with contextlib.suppress(OSError):
      os.write(2, f"stopped by {signal.Signals(number).name}; nothing half-written is left\n".encode())
  # not by an exception, which the callbacks of C++ libraries swallow
  os._exit(code)


@contextlib.contextmanager
def unfinished(path: Path) -> Iterator[Path]:
  """Yields another name beside `path`; the file or folder that is made there is renamed once the block has ended well.

  Otherwise it is deleted, also where a signal ends the process. What processes of this machine have left in the folder
  when they were killed is deleted, too. A link is replaced, not followed.
  """
  _delete_abandoned(path.parent)
  # names may have 255 bytes
  name = os.fsdecode(os.fsencode(path.name)[:120])
  partial = path.with_name(f".{name}.{_host()}.{os.getpid()}.{next(_numbers)}.partial")
  _unfinished.add(partial)
  try:
    yield partial
    _share(partial)
    os.replace(partial, path)
  finally:
    _delete(partial)
    _unfinished.discard(partial)


def _share(partial: Path) -> None:
  """Gives files that a library has made for their owner alone, as safetensors does, the mode of the umask."""
  files = [path for path in partial.rglob("*") if path.is_file()] if partial.is_dir() else [partial]
  if private := [file for file in files if not file.is_symlink() and stat.S_IMODE(file.stat().st_mode) == PRIVATE]:
    # the umask can be read by setting it alone, which other threads would notice
    example = partial.with_name(f"{partial.name.rsplit('.', 2)[0]}.{next(_numbers)}.partial")
    example.touch(exist_ok=False)
    mode = stat.S_IMODE(example.stat().st_mode)
    example.unlink()
    for file in private:
      file.chmod(mode)


def _host() -> str:
  return os.uname().nodename[:64]


def _delete_abandoned(folder: Path) -> None:
  with contextlib.suppress(OSError):
    for path in folder.glob(f".*.{_host()}.*.partial"):
      process = path.name.split(".")[-3]
      if process.isdecimal() and not _lives(int(process)):
        _delete(path)


def _lives(process: int) -> bool:
  try:
    os.kill(process, 0)
  except (ProcessLookupError, OverflowError):
    return False
  except PermissionError:
    pass
  return True


def _delete(path: Path) -> None:
  with contextlib.suppress(OSError):
    if path.is_dir() and not path.is_symlink():
      shutil.rmtree(path, ignore_errors=True)
    else:
      path.unlink()
