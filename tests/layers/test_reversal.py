"""Gaps between samples that are read backwards, in each document and row."""

import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.wrap import Bidirectional, ImageScan
from layers import reversal
from ssm.lti.event_ssm import EventSSM
from ssm.lti.s5 import S5
from tests.hybrids.filled import filled

TIMES = np.array([[0.0, 10.0, 10.1]])
GAPS = jnp.asarray(np.diff(TIMES, prepend=-1.0), jnp.float32)  # the first stands before the first sample


def backward(dt, **where):
  dt = jnp.asarray(dt, jnp.float32)
  order = reversal.order(*dt.shape, where.get("lengths"))
  return np.asarray(reversal.gaps(dt, order, **where))


def test_a_reversed_gap_is_the_time_to_the_sample_after():
  np.testing.assert_allclose(backward(GAPS), [[1, 0.1, 10]], rtol=1e-6)


def test_documents_and_rows_keep_their_own_gaps():
  dt = np.array([[1, 2, 3, 4, 5, np.nan], [6, 7, 8, 9, 10, 11]])
  reset = jnp.zeros((2, 6), bool).at[0, 3].set(True)
  gaps = backward(dt, reset=reset, lengths=jnp.array([5, 6]))
  # read as tokens 4 3 | 2 1 0 and 5 4 3 2 1 0
  np.testing.assert_array_equal(gaps[0, :5], [4, 5, 1, 3, 2])
  np.testing.assert_array_equal(gaps[1], [6, 11, 10, 9, 8, 7])


def test_gaps_along_a_path_are_differences_of_times():
  gaps = reversal.gaps(jnp.array([[5.0, 1, 2, 4]]), jnp.array([[0, 2, 1, 3]]))
  np.testing.assert_array_equal(gaps, [[5, 3, 2, 6]])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gaps_along_a_path_do_not_round_with_the_time_before(dtype):
  """The difference of two times near 1e6, in float32, is off by a third of these gaps."""
  rng, (rows, columns) = np.random.default_rng(0), (5, 7)
  dt = rng.uniform(0.01, 0.02, (2, rows * columns))
  dt[:, 3] = 1e6
  dt = np.asarray(jnp.asarray(dt, dtype), np.float64)
  order = np.stack([np.arange(rows * columns).reshape(rows, columns).T.ravel(), rng.permutation(rows * columns)])
  times = np.cumsum(np.pad(dt, ((0, 0), (1, 0))), axis=1)[:, 1:]
  right = np.abs(np.diff(np.take_along_axis(times, order, axis=1), axis=1))
  found = np.asarray(reversal.gaps(jnp.asarray(dt, dtype), jnp.asarray(order)), np.float64)[:, 1:]
  np.testing.assert_allclose(found, right, rtol=2e-6 if dtype == "float32" else 5e-3)


def one_pole(cls, **kwargs):
  """A state that decays by exp(-0.2 gap), with an output that is its real part, both directions added."""
  module = cls(width=1, state=1, conj_sym=False, activation="none", **kwargs)
  params = filled(module, jnp.zeros((1, 3, 1)))["params"]
  fill = lambda name, value: jnp.full_like(params[name], value)
  values = dict(lam_re=-0.2, lam_im=0.0, log_dt=0.0, B_re=1.0, B_im=0.0, C_re=1.0, C_im=0.0, D=0.0)
  return module, {name: fill(name, value) for name, value in values.items()}


IMPULSE = jnp.zeros((1, 3, 1)).at[0, 2].set(1.0)
RIGHT = [np.exp(-0.2 * 10.1), np.exp(-0.2 * 0.1)]


@pytest.mark.parametrize("cls, disc", [(S5, "zoh"), (EventSSM, "async"), (EventSSM, "dirac"), (EventSSM, "zoh")])
def test_an_impulse_reaches_earlier_samples_by_the_time_between(cls, disc):
  """An impulse at the last of samples at times 0, 10, 10.1 has decayed to e^-0.02 and e^-2.02 at the two before it.

  The gain of "zoh" is (1 - e^-0.2) / 0.2, since the gap of 1 before the first sample is the backward scan's first.
  """
  module, params = one_pole(cls, disc=disc, bidirectional=True)
  y = np.asarray(module.apply({"params": params}, IMPULSE, side={"dt": GAPS}))[0, :, 0]
  gain = 1 if disc == "dirac" else (1 - np.exp(-0.2)) / 0.2
  np.testing.assert_allclose(y[:2], gain * np.array(RIGHT), rtol=1e-5)


@pytest.mark.parametrize(
  "wrapper, fields, name",
  [(Bidirectional, {}, "backward"), (ImageScan, dict(orders=("row", "row_reversed"), rows=1, columns=3), "paths_1")],
)
def test_wrappers_hand_on_the_gaps_after_each_token(wrapper, fields, name):
  inner = dict(name="event_ssm", state=1, conj_sym=False, activation="none", disc="dirac")
  module = wrapper(width=1, mixer=inner, **fields)
  params = filled(module, IMPULSE)["params"]
  _, pole = one_pole(EventSSM, disc="dirac")
  silent = {**pole, "C_re": 0 * pole["C_re"]}
  y = module.apply({"params": {key: pole if key == name else silent for key in params}}, IMPULSE, side={"dt": GAPS})
  np.testing.assert_allclose(y[0, :, 0], [*RIGHT, 1], rtol=1e-5)
