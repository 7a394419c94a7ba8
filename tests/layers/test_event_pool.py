"""Windows of events pooled into one event each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from layers.event_pool import event_pool

X = jax.random.normal(jax.random.key(1), (2, 9, 4))
GAPS = jax.random.exponential(jax.random.key(2), (2, 9))


@pytest.mark.parametrize("mode", ["first", "last", "mean", "time"])
def test_a_window_of_events_becomes_one_with_all_their_time(mode):
  """Nine events in windows of four: two, and one left over; a row of six has one."""
  x, gaps = np.asarray(X), np.asarray(GAPS).copy()
  gaps[0, :4] = 0
  pick = {
    "first": lambda w, g: w[0],
    "last": lambda w, g: w[-1],
    "mean": lambda w, g: w.mean(axis=0),
    "time": lambda w, g: np.average(w, axis=0, weights=g + 1e-6),
  }[mode]
  lengths = np.array([9, 6])
  spoilt = [np.where(np.arange(9) < lengths[:, None], z, np.nan) for z in (x.transpose(2, 0, 1), gaps)]
  y, dt, left = event_pool(
    jnp.asarray(spoilt[0].transpose(1, 2, 0)), jnp.asarray(spoilt[1]), stride=4, mode=mode, lengths=jnp.asarray(lengths)
  )
  np.testing.assert_array_equal(left, [2, 1])
  for row, window in ((0, 0), (0, 1), (1, 0)):
    there = slice(4 * window, 4 * window + 4)
    np.testing.assert_allclose(y[row, window], pick(x[row, there], gaps[row, there]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dt[row, window], gaps[row, there].sum(), rtol=1e-6)
  assert not y[1, 1].any()
  assert not dt[1, 1].any()


@pytest.mark.parametrize("kwargs", [dict(stride=0), dict(stride=2, mode="max")])
def test_pooling_refuses_what_it_does_not_know(kwargs):
  with pytest.raises(ValueError, match="stride=0; it must|mode='max'; choose"):
    event_pool(X, GAPS, **kwargs)
