"""LSSL: small sizes, parameter count, oracle, refusals; fixed transitions, and initial values."""

import numpy as np

from ssm.lti.lssl import INITS, LSSL
from tests.contract.case import D
from tests.initial import initial

SMALL = {"": dict(state=4)}
ORACLE = {
  "": dict(state=4),
  "its output alone learned": (
    dict(state=2, A_init="legt", learn="output", alpha=1.0),
    dict(
      A=np.array([[-0.5, 3**0.5 / 2], [-(3**0.5) / 2, -1.5]]),
      B=np.array([0.5, 3**0.5 / 2]),
      dt=10 ** np.linspace(-3, -1, D),
    ),
  ),
}
RESUMED = ("",)
REFUSED = [
  (dict(state=0), "state=0; it must be at least 1"),
  (dict(state=7, A_init="fout"), "state=7; it must be at least 1, and even for A_init='fout'"),
  (dict(A_init="lin"), "A_init='lin'; choose from ['legs', 'legt', 'lagt', 'fout', 'random']"),
  (dict(learn="C"), "learn='C'; choose from ['all', 'output']"),
  (dict(alpha=1.5), "alpha=1.5; it must be in [0, 1]"),
  (dict(copies=3), "copies=3 does not divide width=8"),
  (dict(dt_min=0.0), "dt_min=0.0, dt_max=0.1"),
]
TRAINED = {"slow": {"A", "B", "log_dt"}}


def count(d, state):
  """A and B, shared; C; D and dt; the map with bias."""
  return state * (state + 1) + d * state + 2 * d + d * (d + 1)


def test_with_a_learned_output_alone_a_b_and_dt_are_no_parameters():
  p = initial(LSSL(width=4, state=6, learn="output"))
  assert set(p) == {"C", "D", "out_proj"}


def test_initial_values():
  for measure, matrices in INITS.items():
    p = initial(LSSL(width=128, state=6, A_init=measure, copies=2))
    A, B = matrices(6)
    assert np.linalg.eigvals(A).real.max() <= 1e-6
    np.testing.assert_allclose(p["A"], np.stack([A, A]), rtol=1e-6)
    np.testing.assert_allclose(p["B"], np.stack([B, B]), rtol=1e-6)
  np.testing.assert_allclose([np.mean(p["C"] ** 2), np.mean(p["D"] ** 2)], 1, rtol=0.25)
  np.testing.assert_allclose(np.log10(np.quantile(np.exp(p["log_dt"]), [0, 0.5, 1])), [-3, -2, -1], atol=0.3)
