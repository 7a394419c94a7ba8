"""Modal Hyena: small sizes, parameter count, oracle, refusals; initial values."""

import numpy as np

from ssm.lti.hyena_modal import HyenaModal
from tests.initial import initial

SMALL = {"": dict(state=3)}
ORACLE = {
  "": (dict(state=3), {}),
  "no biases": (dict(state=1, taps=2, bias=False, out_bias=False, conv_bias=False), {}),
}
RESUMED = ("",)
REFUSED = [(dict(state=0), "HyenaModal: state=0; it must be at least 1"), (dict(dt_min=0.0), "dt_min=0.0, dt_max=0.1")]
TRAINED = {"slow": {"decay_log", "angle"}}


def count(d, state):
  """In and out with biases; convolution with bias; poles and residues; D."""
  return 4 * d * (d + 1) + 4 * 3 * d + 4 * d * state + d


def test_initial_values():
  p = initial(HyenaModal(width=5, state=4))
  np.testing.assert_allclose(np.exp(p["decay_log"][:, 0]), np.geomspace(1e-3, 1e-1, 5) / 2, rtol=1e-5)
  np.testing.assert_allclose(p["angle"][-1], 0.1 * np.pi * np.arange(4), rtol=1e-5)
  np.testing.assert_array_equal(p["D"], 0)
