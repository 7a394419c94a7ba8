"""Liquid-S4: small sizes, parameter count, oracle, refusals; degree one, and the form without a state."""

import jax
import numpy as np
import pytest

from ssm.lti.liquid_s4 import LiquidS4
from ssm.lti.s4d import S4D
from tests.initial import initial
from tests.mixers import s4d

SMALL = {
  "": dict(state=6, degree=3),
  "kb": dict(state=4, degree=3, kernel="kb"),
  "official": dict(state=4, degree=3, form="official"),
}
ORACLE = {
  "": dict(state=6, degree=3),
  "kb": dict(state=6, degree=3, kernel="kb"),
  "official": dict(state=4, degree=4, form="official"),
}
REFUSED = [
  (dict(degree=0), "LiquidS4: degree=0; it must be at least 1"),
  (dict(kernel="polyb"), "LiquidS4: kernel='polyb'; choose from ['pb', 'kb']"),
  (dict(form="both"), "LiquidS4: form='both'; choose from ['causal', 'official']"),
  (dict(kernel="kb", form="official"), "LiquidS4: kernel='kb' has no form='official'"),
  (dict(activation="relu"), "LiquidS4: activation='relu'; choose from"),
  (dict(state=7), "state=7; conjugate pairs are stored once"),
  (dict(copies=3), "copies=3 does not divide width=8"),
  (dict(disc="euler"), "disc='euler'; choose from"),
]
TRAINED = {"slow": {"ssm/A_log", "ssm/A_im", "ssm/B_re", "ssm/B_im", "ssm/log_dt"}}


def count(d, state, **_):
  """As many as S4D, whose B and C also weigh the products."""
  return s4d.count(d, state)


@pytest.mark.parametrize("kwargs", [{}, dict(kernel="kb"), dict(form="official")])
def test_degree_one_is_s4d(kwargs):
  module, plain = (cls(width=4, state=8, disc="bilinear", activation="none") for cls in (LiquidS4, S4D))
  module = module.clone(degree=1, **kwargs)
  p = initial(module)
  x = jax.random.normal(jax.random.key(1), (2, 30, 4))
  y = jax.jit(plain.apply)({"params": p["ssm"]}, x)
  np.testing.assert_allclose(jax.jit(module.apply)({"params": p}, x), y, atol=1e-6)
