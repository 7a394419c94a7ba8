"""2-D SSM: small sizes, parameter count, oracle, refusals; initial values."""

import jax.numpy as jnp
import numpy as np

from ssm.lti.ssm2d import SSM2D
from tests.initial import variables

SMALL = {"": dict(state=2, numbers="complex")}
ORACLE = {
  "": (dict(state=2), dict(columns=7)),
  "as printed": (dict(state=3, directions=2, inside=1.0), dict(columns=7, inside=1)),
  "complex and shared": (dict(state=2, directions=1, numbers="complex", copies=2), dict(columns=7)),
}
REFUSED = [
  (dict(state=0), "state=0; it must be at least 1"),
  (dict(copies=3), "copies=3 does not divide width=8"),
  (dict(directions=3), "directions=3; choose from [1, 2, 4]"),
  (dict(numbers="imaginary"), "numbers='imaginary'; choose from"),
  (dict(rows=2, columns=3), "SSM2D: columns=3 does not divide the 2 tokens of the sequence"),
]
TRAINED = {"slow": {"A_size", "A_angle", "B"}}


def count(d, state, numbers):
  """A, B and C, in two real numbers each, for every channel, direction and state; D."""
  return 16 * d * 4 * state + d


def initial(module, t=12):
  return variables(module, jnp.zeros((1, t, module.width)))


def test_initial_values():
  p = initial(SSM2D(width=64, state=16))["params"]
  assert {name: value.shape[0] for name, value in p.items()} == {"A_size": 4, "B": 2, "C": 2, "D": 64}
  np.testing.assert_allclose([np.std(p[name]) for name in ("A_size", "B", "C", "D")], [0.2, 0.2, 1, 1], rtol=0.2)
  p = initial(SSM2D(width=64, state=16, numbers="complex"))["params"]
  for name in ("A_size", "A_angle"):
    np.testing.assert_allclose(np.quantile(p[name], [0, 0.5, 1]), [0.5, 1.75, 3], atol=0.05)
