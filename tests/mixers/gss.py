"""GSS: small sizes, parameter count, oracle, refusals; initial values and default sizes."""

import numpy as np

from ssm.lti.gss import GSS
from tests.initial import initial

SMALL = {"": dict(inner=3, outer=12, state=4)}
ORACLE = {"": dict(inner=3, outer=12, state=4)}
REFUSED = [
  (dict(inner=0), "GSS: inner=0; it must be at least 1"),
  (dict(outer=-4), "GSS: outer=-4"),
  (dict(state=0), "GSS: state=0"),
]
TRAINED = {"slow": {"lam_log", "lam_im_log", "C_re", "C_im"}}


def count(d, inner, outer, state):
  """Gate and out, in and out of the state space; lam, C; D."""
  return (2 * outer + inner) * d + inner * outer + 2 * state * (inner + 1) + inner


def test_initial_values_and_sizes():
  p = initial(GSS(width=64))
  assert p["C_re"].shape == (16, 512)
  sizes = dict(v_proj=(64, 256), u_proj=(64, 16), y_proj=(16, 256), out_proj=(256, 64))
  assert {name: p[name]["kernel"].shape for name in sizes} == sizes
  np.testing.assert_allclose([np.mean(p["C_re"] ** 2), np.mean(p["C_im"] ** 2)], 1 / 512, rtol=0.1)
  np.testing.assert_allclose([np.mean(p["lam_log"] ** 2), np.mean(p["lam_im_log"] ** 2)], 1, rtol=0.2)
