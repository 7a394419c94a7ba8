"""Events, each at a time of its own: the gap before each, which mixers take as `dt`.

The gap before an event lets the state decay before the event is read; Event-SSM's own loaders attach the gap after an
event to it instead, so that a state decays between its events all the same, but for the first and the last.
"""

import numpy as np

from mistake import Mistake


def gaps(times: np.ndarray, *, unit: float, first: float = 1.0, least: float = 1e-6) -> np.ndarray:
  """Returns the times "*b t" since the event before, in units of `unit`, float32; no gap is below `least`.

  Args:
    first: the gap before the first event, in units: nothing has happened before it.
    least: what stands between events at the same time.
  Raises:
    ValueError: a time is not finite or before the one in front of it; `unit`, `first` or `least` is not positive.
  """
  for name, value in (("unit", unit), ("first", first), ("least", least)):
    if not (np.isfinite(value) and value > 0):
      raise Mistake(f"gaps: {name}={value}; it must be positive")
  _refuse("event times", times, ~np.isfinite(times), "is not finite")
  # before they become floats, which have fewer digits than microseconds since long ago
  steps = np.diff(times, axis=-1)
  _refuse("event times", times[..., 1:], steps < 0, "comes before the event in front of it; sort the events by time")
  start = np.full((*times.shape[:-1], min(1, times.shape[-1])), first)
  return np.concatenate([start, np.maximum(steps / unit, least)], axis=-1).astype(np.float32)


def checked(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the batch, if its `dt`, where it has one, can be a time step.

  Raises:
    ValueError: an entry is not finite or not positive.
  """
  if "dt" in batch:
    dt = batch["dt"]
    _refuse("dt", dt, ~(np.isfinite(dt) & (dt > 0)), "is no time step; it must be positive and finite")
  return batch


def _refuse(what: str, values: np.ndarray, wrong: np.ndarray, why: str) -> None:
  if wrong.any():
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    raise Mistake(f"{what}: {values[index]} at {index} {why}")
