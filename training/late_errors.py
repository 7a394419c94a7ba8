"""Keeps errors that come after a failed save has been reported off standard error.

Orbax writes all arrays of a save at once, raises the first error and closes its event loop. The other writes end later,
in threads of tensorstore: each of them calls the closed loop, which raises an exception where nobody can catch it. For
tasks that nobody has waited for asyncio prints the errors as well, and Orbax logs a traceback in each of its threads.
`Checkpoints.wait` says the reason once, in one line.
"""

import logging
import os
import sys
from typing import Any

from absl import logging as absl_logging

# of asyncio about tasks whose loop was closed by the first error
_ABANDONED = ("exception was never retrieved", "was destroyed but it is pending")
_CLOSED = "Event loop is closed"


def hush() -> None:
  """Filters what asyncio, Orbax and tensorstore print about writes that another one's error has ended."""
  # a filter that is there already is not added again
  logging.getLogger("asyncio").addFilter(_is_asked_for)
  absl_logging.get_absl_logger().addFilter(_is_not_of_orbax)
  if not isinstance(sys.unraisablehook, _Hook):
    sys.unraisablehook = _Hook(sys.unraisablehook)


def _is_asked_for(record: logging.LogRecord) -> bool:
  return not any(words in record.getMessage() for words in _ABANDONED)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
  return "/orbax/" not in record.pathname.replace(os.sep, "/")


class _Hook:
  """A hook for exceptions that nobody can catch, which passes on all others to the one before it."""

  def __init__(self, before: Any):
    self._before = before

  def __call__(self, unraisable: Any) -> None:
    late = isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == _CLOSED
    if not late:
      self._before(unraisable)
