"""Ends a process of a run in one line when another process of the run has died, as none can go on alone.

JAX notices by itself, in one of two ways. A collective fails, which is an exception here. Or the coordination service
misses heartbeats, and JAX aborts the process with a dump of some forty lines: standard error goes through a filter
(training/peers_filter.py) that replaces them by one, and the abort becomes the exit code LOST.
"""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import jax

from training.peers_filter import message

LOST = 4
# the words of collectives and of the coordination service for a connection that is gone
GONE = re.compile(r"gloo|nccl|unavailable|connection (reset|closed|refused)|heartbeat|socket closed|broken pipe", re.I)
# the words of Orbax for its own meeting of all processes, to which one does not come
MISSED = re.compile(r"timed out while waiting for \w+ barrier", re.I)
# seconds in which the other processes may fail for the same reason, and say so themselves
GRACE = 3.0

_ends_with = LOST


def several() -> bool:
  """Returns whether this process has joined others."""
  return jax.distributed.is_initialized()


def watch() -> None:
  """Filters standard error from here on, and turns an abort into the exit code LOST. Called before JAX joins."""
  program = [sys.executable, "-S", "-E", str(Path(__file__).with_name("peers_filter.py"))]
  filtered = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=sys.__stderr__)
  assert filtered.stdin is not None, "it was asked for"
  os.dup2(filtered.stdin.fileno(), 2)
  filtered.stdin.close()
  # Python's own handlers run in the main thread only, which may be waiting for the dead
  ctypes.CDLL(None).signal(signal.SIGABRT, _abort)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _abort(_number: int) -> None:
  os._exit(_ends_with)


def end_if_lost(error: BaseException) -> None:
  """Ends this process where an exception says that another one is gone: to close anything would wait for it."""
  if several() and (_is(error, (RuntimeError, ValueError), GONE) or _is(error, (TimeoutError,), MISSED)):
    print(message(str(error)), file=sys.stderr)
    _end(LOST)


def _is(error: BaseException, kinds: tuple[type[BaseException], ...], words: re.Pattern[str]) -> bool:
  return isinstance(error, kinds) and words.search(str(error)) is not None


def leave(code: int) -> NoReturn:
  """Ends this process, which failed, without waiting for the others at JAX's barrier, where they may never come."""
  global _ends_with
  _ends_with = code
  time.sleep(GRACE)
  _end(code)


def _end(code: int) -> NoReturn:
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
