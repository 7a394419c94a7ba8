"""Event-SSM: what its three rules make of gaps, its relation to S5, and the pooling of events."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from layers.event_pool import event_pool
from ssm.lti.event_ssm import EventSSM
from ssm.lti.s5 import S5

D = 4
X = jax.random.normal(jax.random.key(1), (2, 9, D))
GAPS = jax.random.exponential(jax.random.key(2), (2, 9))


def run(module, variables, *args, method="prefill", **kwargs):
  return jax.jit(functools.partial(module.apply, method=method))(variables, *args, **kwargs)


@functools.cache
def initial(disc):
  module = EventSSM(width=D, state=8, disc=disc)
  return module, nn.unbox(jax.jit(module.init)(jax.random.key(0), X))


def after(disc, x, gaps, state=None):
  """The state after events x with gaps, from an empty one or from `state`."""
  module, v = initial(disc)
  state = module.init_state(1, 9) if state is None else state
  return run(module, v, jnp.asarray(x)[None], state, side={"dt": jnp.asarray(gaps, jnp.float32)[None]})[1]


@pytest.mark.parametrize("disc", ["async", "zoh"])
def test_unit_gaps_are_s5(disc):
  module, v = initial(disc)
  s5 = S5(width=D, state=8, activation="half_glu2")
  expected = run(s5, v, X, method="__call__")
  np.testing.assert_allclose(run(module, v, X, method="__call__"), expected, atol=1e-6)
  np.testing.assert_allclose(run(module, v, X, method="__call__", side={"dt": jnp.ones((2, 9))}), expected, atol=1e-6)


def test_with_zoh_any_gaps_are_s5():
  module, v = initial("zoh")
  s5, side = S5(width=D, state=8, activation="half_glu2"), {"dt": GAPS}
  expected = run(s5, v, X, method="__call__", side=side)
  np.testing.assert_allclose(run(module, v, X, method="__call__", side=side), expected, atol=1e-6)


@pytest.mark.parametrize("disc", ["async", "dirac", "zoh"])
def test_silence_may_be_cut_in_two(disc):
  """Events without content, however they divide the time between two others, change nothing."""
  first, silent, last = X[0, 0], jnp.zeros(D), X[0, 1]
  short = after(disc, [first, silent, silent, last], [1.0, 0.7, 1.9, 0.4]).h
  long = after(disc, [first, silent, last], [1.0, 2.6, 0.4]).h
  longer = after(disc, [first, silent, last], [1.0, 3.6, 0.4]).h
  size = np.abs(long).max()
  assert np.abs(short - long).max() < 1e-5 * size
  assert np.abs(longer - long).max() > 1e-3 * size


def test_the_gap_before_an_event_weighs_it_under_zoh_alone():
  """From an empty state, so that nothing decays: the gain by itself."""
  gains = {disc: [after(disc, X[0, :1], [gap]).h for gap in (1.0, 5.0)] for disc in ("async", "dirac", "zoh")}
  for disc in ("async", "dirac"):
    np.testing.assert_allclose(*gains[disc], rtol=1e-6)
  assert np.abs(gains["zoh"][1] / gains["zoh"][0]).min() > 2
  np.testing.assert_allclose(gains["async"][0], gains["zoh"][0], rtol=1e-5)
  p = initial("dirac")[1]["params"]
  np.testing.assert_allclose(gains["dirac"][0][0], (p["B_re"] + 1j * p["B_im"]) @ X[0, 0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("disc", ["async", "dirac"])
def test_events_at_once_have_no_order(disc):
  one, two = X[0, 0], X[0, 1]
  np.testing.assert_allclose(after(disc, [one, two], [1, 0]).h, after(disc, [two, one], [1, 0]).h, atol=1e-6)


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


@pytest.mark.parametrize(
  "kwargs, reason",
  [
    (dict(disc="bilinear"), r"EventSSM: disc='bilinear'; choose from \['async', 'dirac', 'zoh'\]"),
    (dict(state=7), "EventSSM: state=7 in blocks=1 makes blocks of 7"),
  ],
)
def test_what_does_not_fit_is_named_when_the_model_is_built(kwargs, reason):
  with pytest.raises(ValueError, match=reason):
    EventSSM(width=8, **kwargs)
