"""Writes that end after the first error of a save print nothing, and all other errors are printed as before."""

import asyncio
import gc
import logging
import sys

import pytest
import tensorstore

from training import late_errors


@pytest.fixture
def unraisable(monkeypatch) -> list:
  """The exceptions that nobody can catch and that the filter passes on."""
  seen: list = []
  monkeypatch.setattr(sys, "unraisablehook", lambda args: seen.append(args.exc_value))
  late_errors.hush()
  return seen


def fail_beside(future) -> None:
  """Ends a loop by an error while it waits for a future, as Orbax does when one of several writes fails."""

  async def fails():
    raise OSError("no room")

  async def both():
    await asyncio.gather(asyncio.ensure_future(fails()), asyncio.ensure_future(wait()))

  async def wait():
    await future

  loop = asyncio.new_event_loop()
  try:
    with pytest.raises(OSError, match="no room"):
      loop.run_until_complete(both())
  finally:
    loop.close()


def test_a_write_that_ends_after_its_loop_is_not_printed(unraisable, capfd, caplog):
  promise, future = tensorstore.Promise.new()
  fail_beside(future)
  promise.set_result(1)
  gc.collect()
  assert not unraisable
  assert not caplog.records
  assert not capfd.readouterr().err


def test_without_the_filter_it_is_printed(monkeypatch):
  """Otherwise the test above shows nothing."""
  seen: list = []
  monkeypatch.setattr(sys, "unraisablehook", lambda args: seen.append(str(args.exc_value)))
  promise, future = tensorstore.Promise.new()
  fail_beside(future)
  promise.set_result(1)
  assert seen == ["Event loop is closed"]


def test_other_errors_are_printed(unraisable, caplog):
  class Broken:
    def __del__(self):
      raise RuntimeError("a bug")

  late_errors.hush()
  Broken()
  gc.collect()
  assert [str(error) for error in unraisable] == ["a bug"]
  with caplog.at_level(logging.WARNING):
    logging.getLogger("asyncio").error("Exception in callback")
  assert [record.getMessage() for record in caplog.records] == ["Exception in callback"]
