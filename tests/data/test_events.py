"""Gaps between events: what they are, and which times and steps are refused."""

import numpy as np
import pytest

from data import events, pipeline
from tests.refused import refused


def test_gaps_are_the_times_since_the_event_before():
  times = np.array([[10, 30, 30, 90], [5, 6, 7, 8]])
  np.testing.assert_allclose(events.gaps(times, unit=20, least=0.01), [[1, 1, 0.01, 3], [1, 0.05, 0.05, 0.05]])
  assert events.gaps(times, unit=20).dtype == np.float32
  assert events.gaps(times[:, :0], unit=1).shape == (2, 0)


def test_late_microseconds_keep_their_digits():
  times = 10**17 + np.array([0, 3, 7])
  np.testing.assert_array_equal(events.gaps(times, unit=1), [1, 3, 4])


@pytest.mark.parametrize(
  "times, message",
  [
    ([1.0, np.nan, 2.0], r"event times: nan at \(1,\) is not finite"),
    ([[0.0, 1.0], [3.0, 2.0]], r"event times: 2.0 at \(1, 0\) comes before the event in front of it; sort"),
  ],
)
def test_times_that_cannot_be_are_named(times, message):
  refused(message, events.gaps, np.array(times), unit=1)


@pytest.mark.parametrize("name", ["unit", "first", "least"])
def test_units_are_positive(name):
  refused(f"gaps: {name}=0; it must be positive", events.gaps, np.arange(3), **{"unit": 1, name: 0})


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.inf, np.nan])
def test_steps_that_are_none_are_refused_on_the_host(wrong):
  """In training and in evaluation, before a device sees them."""

  def rows(first, count):
    dt = np.ones((count, 3), np.float32)
    dt[-1, 1] = wrong
    return {"inputs": np.zeros((count, 3), np.int32), "dt": dt}

  message = rf"dt: {wrong} at \(1, 1\) is no time step; it must be positive and finite"
  refused(message, lambda: next(pipeline.training(rows, 2, 0, 1)))
  refused(message, lambda: next(pipeline.InOrder(rows, 2, 2, 0, 1)()))
