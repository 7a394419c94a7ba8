"""Keeps errors that come after a failed save has been reported off standard error.

Orbax writes all arrays of a save at once, raises the first error and closes its event loop. The other writes end later,
in threads of tensorstore: each of them calls the closed loop, which raises an exception where nobody can catch it. For
tasks that nobody has waited for asyncio prints the errors as well, and Orbax logs a traceback in each of its threads.
`Checkpoints.wait` says the reason once, in one line.
"""

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from absl import logging as absl_logging

# of asyncio about tasks whose loop was closed by the first error
_ABANDONED = ("exception was never retrieved", "was destroyed but it is pending")
_CLOSED = "Event loop is closed"
_failed: Callable[[BaseException], None] | None = None


def hush(failed: Callable[[BaseException], None] | None = None) -> None:
  """Filters what asyncio, Orbax and tensorstore print about writes that another one's error has ended.

  Args:
    failed: gets the error of a save as soon as Orbax logs it. Where there are several processes, Orbax raises it only
      after a barrier, to which the others do not come.
  """
  global _failed
  _failed = failed
  # a filter that is there already is not added again
  logging.getLogger("asyncio").addFilter(_is_asked_for)
  absl_logging.get_absl_logger().addFilter(_is_not_of_orbax)
  if not isinstance(sys.unraisablehook, _Hook):
    sys.unraisablehook = _Hook(sys.unraisablehook)


def _is_asked_for(record: logging.LogRecord) -> bool:
  return not any(words in record.getMessage() for words in _ABANDONED)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
  of_orbax = "/orbax/" in record.pathname.replace(os.sep, "/")
  error = record.exc_info[1] if record.exc_info else None
  if of_orbax and _failed is not None and error is not None and record.levelno >= logging.ERROR:
    _failed(error)
  return not of_orbax


class _Hook:
  """A hook for exceptions that nobody can catch, which passes on all others to the one before it."""

  def __init__(self, before: Any):
    self._before = before

  def __call__(self, unraisable: Any) -> None:
    late = isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == _CLOSED
    if not late:
      self._before(unraisable)
