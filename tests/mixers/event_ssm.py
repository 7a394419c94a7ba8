"""Event-SSM: small sizes, parameter count, oracle, refusals; silence between events, and events at one time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssm.lti.event_ssm import EventSSM
from tests.initial import variables
from tests.mixers import s5

SMALL = {"": dict(state=8, blocks=2)}
ORACLE = {"": dict(state=8), "dirac": dict(state=8, disc="dirac"), "zoh": dict(state=6, disc="zoh", activation="none")}
SIDE = dict.fromkeys(ORACLE, s5.GAPS)
REFUSED = [
  (dict(disc="bilinear"), "EventSSM: disc='bilinear'; choose from ['async', 'dirac', 'zoh']"),
  (dict(state=7), "EventSSM: state=7 in blocks=1 makes blocks of 7"),
]
TRAINED = s5.TRAINED
D = 4
X = jax.random.normal(jax.random.key(1), (2, 9, D))


def count(d, **fields):
  """As many as S5."""
  return s5.count(d, **fields)


@functools.cache
def initial(disc):
  module = EventSSM(width=D, state=8, disc=disc)
  return module, variables(module, X)


def after(disc, x, gaps):
  """The state h after events x with gaps."""
  module, v = initial(disc)
  prefill = jax.jit(functools.partial(module.apply, method="prefill"))
  side = {"dt": jnp.asarray(gaps, jnp.float32)[None]}
  return prefill(v, jnp.asarray(x)[None], module.init_state(1, 9), side=side)[1].h


@pytest.mark.parametrize("disc", ["async", "dirac", "zoh"])
def test_silence_may_be_cut_in_two(disc):
  """Events without content, however they divide the time between two others, change nothing."""
  first, silent, last = X[0, 0], jnp.zeros(D), X[0, 1]
  short = after(disc, [first, silent, silent, last], [1.0, 0.7, 1.9, 0.4])
  long = after(disc, [first, silent, last], [1.0, 2.6, 0.4])
  longer = after(disc, [first, silent, last], [1.0, 3.6, 0.4])
  size = np.abs(long).max()
  assert np.abs(short - long).max() < 1e-5 * size
  assert np.abs(longer - long).max() > 1e-3 * size


@pytest.mark.parametrize("disc", ["async", "dirac"])
def test_events_at_once_have_no_order(disc):
  one, two = X[0, 0], X[0, 1]
  np.testing.assert_allclose(after(disc, [one, two], [1, 0]), after(disc, [two, one], [1, 0]), atol=1e-6)
