"""DSS: small sizes, parameter count, oracle, refusals; initial values, and the softmax kernel of modes that grow."""

import numpy as np
import pytest

from ssm.lti import hippo
from ssm.lti.dss import DSS
from tests.initial import initial
from tests.oracles import dss as oracle

SMALL = {"": dict(state=3), "softmax": dict(state=3, kernel="softmax")}
ORACLE = {"": dict(state=3), "softmax": dict(state=3, kernel="softmax", max_len=30)}
RESUMED = ("softmax",)
REFUSED = [
  (dict(state=0), "DSS: state=0; it must be at least 1"),
  (dict(activation="relu"), "DSS: activation='relu'; choose from"),
  (dict(kernel="clip"), "DSS: kernel='clip'; choose from ['exp', 'softmax']"),
  (dict(kernel="softmax", max_len=0), "DSS: max_len=0; it must be at least 1"),
  (dict(dt_max=1e-4), "dt_min=0.001, dt_max=0.0001"),
]
TRAINED = {"slow": {"lam_log", "lam_re", "lam_im", "C_re", "C_im", "log_dt"}}


def count(d, state, **_):
  """lam, C; D and two dt; the map to 2d with bias."""
  return 2 * state + 2 * d * state + 3 * d + 2 * d * (d + 1)


def test_initial_values():
  p = initial(DSS(width=512, state=8, activation="none"))
  lam = -np.exp(p["lam_log"]) + 1j * p["lam_im"]
  # of the sixteen eigenvalues of LegS's normal part the upper half, the fastest first
  np.testing.assert_allclose(lam, hippo.legs_normal(16).lam[:8].conj(), rtol=1e-6)
  np.testing.assert_allclose([np.mean(p["C_re"] ** 2), np.mean(p["C_im"] ** 2), np.mean(p["D"] ** 2)], 1, rtol=0.2)
  assert p["log_dt"].shape == (512, 2)
  quantiles = np.quantile(np.exp(p["log_dt"]), [0, 0.5, 1], axis=0).T
  np.testing.assert_allclose(np.log10(quantiles), [[-3, -2, -1]] * 2, atol=0.15)


def softmax(state, max_len, lam_re):
  """The first l taps, a function of l, of a DSS-softmax of two channels with these real parts; and its parameters."""
  module = DSS(width=2, state=state, kernel="softmax", max_len=max_len, activation="none")
  p = initial(module) | {"lam_re": np.asarray(lam_re, np.float32), "D": np.zeros(2, np.float32)}
  return lambda l: np.asarray(module.apply({"params": p}, l, method="_taps")), p


def test_the_taps_of_each_mode_are_a_softmax_times_its_weight():
  """They add up to Re(C / lam), whichever way they lean; a mode that grows is largest at the last lag."""
  taps, p = softmax(1, 50, [-0.5])
  weight = ((p["C_re"] + 1j * p["C_im"]) / (p["lam_re"] + 1j * p["lam_im"])).real[:, 0]
  np.testing.assert_allclose(taps(50).sum(axis=1), weight, rtol=1e-4, atol=1e-6)
  taps, p = softmax(1, 50, [60.0])
  weight = ((p["C_re"] + 1j * p["C_im"]) / (p["lam_re"] + 1j * p["lam_im"])).real[:, 0]
  np.testing.assert_allclose(taps(50).sum(axis=1), weight, rtol=1e-4, atol=1e-6)
  assert (np.abs(taps(50)).argmax(axis=1) > 25).all()


@pytest.mark.slow
@pytest.mark.parametrize("max_len", [1, 40, 4096])
def test_modes_that_grow_and_modes_that_decay_are_the_papers(max_len):
  """In float32, where e^{z L} alone overflows."""
  taps, p = softmax(4, max_len, [-0.5, 3.0, -40.0, 8.0])
  C, dt = (p["C_re"] + 1j * p["C_im"]).astype(complex), np.exp(p["log_dt"].astype(float))
  K = oracle.softmax_kernel({name: np.asarray(value, float) for name, value in p.items()}, C, dt, max_len, max_len)
  np.testing.assert_allclose(taps(max_len), K.T, atol=1e-3 * np.abs(K).max())
  np.testing.assert_allclose(taps(max_len)[:, : max_len // 2], taps(max_len // 2 or 1)[:, : max_len // 2], atol=1e-5)
