"""LFM2's gated short convolution: small sizes, parameter count, oracle, refusals; initial values."""

import numpy as np

from ssm.lti.gated_conv import GatedConv
from tests.initial import initial

SMALL = {"": {}}
ORACLE = {"": {}, "biases": dict(taps=4, bias=True)}
REFUSED = [(dict(taps=0), "taps=0; it must be at least 1")]


def count(d, taps=3):
  """In and out, convolution."""
  return 4 * d * d + taps * d


def test_initial_values():
  p = initial(GatedConv(width=64))
  np.testing.assert_allclose(np.mean(np.square(p["in_proj"]["kernel"])), 1 / 64, rtol=0.1)
  np.testing.assert_allclose(np.mean(np.square(p["out_proj"]["kernel"])), 1 / 64, rtol=0.1)
  np.testing.assert_allclose(np.abs(p["conv"]["kernel"]).max(), 3**-0.5, rtol=0.05)
