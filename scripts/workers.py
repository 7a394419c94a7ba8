"""Processes that share the jobs of a script, and that a signal ends together with it."""

import concurrent.futures
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ending


def spread(function: Callable[[Any], Any], jobs: Sequence[Any], count: int) -> Iterator[Any]:
  """Yields what `function` returns for each job, in order, from `count` processes; from this one if that is below 2."""
  if count < 2:
    yield from map(function, jobs)
    return
  # a signal leaves the pool's semaphores to Python's tracker, which deletes them, and would warn of them
  os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
  # a fork of a process that has threads may hang
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(count, mp_context=context, initializer=_begin) as pool:
    # Ctrl-C reaches all processes of a terminal: those that are started here leave it to this one
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
      found = pool.map(function, jobs)
    finally:
      signal.pthread_sigmask(signal.SIG_SETMASK, before)
    yield from found


def _begin() -> None:
  ending.on_signals(quiet=True)
