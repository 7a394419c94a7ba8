"""H3: small sizes, parameter count, oracle, refusals; its shift state space and initial values."""

import jax
import numpy as np

from ssm.lti.h3 import H3
from tests.initial import initial

SMALL = {"": dict(state=4), "heads": dict(state=4, head_dim=2)}
ORACLE = {"": dict(state=4), "heads": dict(state=4, head_dim=4, disc="zoh")}
REFUSED = [
  (dict(head_dim=3), "H3: head_dim=3 does not divide width=8"),
  (dict(state=7), "state=7; conjugate pairs are stored once"),
  (dict(A_init="fout"), "A_init='fout'; choose from"),
  (dict(dt_min=0.0), "dt_min=0.0, dt_max=0.1"),
]
TRAINED = {"slow": {"shift_B", "ssm/A_log", "ssm/A_im", "ssm/B_re", "ssm/B_im", "ssm/log_dt"}}


def count(d, state, head_dim=1):
  """Queries, keys, values and out, with biases; B, C and D of the shift; the diagonal's A, B and C, D and dt."""
  return 4 * d * (d + 1) + d * (2 * state + 1) + d // head_dim * (3 * state + 2)


def test_the_shift_starts_as_a_filter_with_taps_c():
  module = H3(width=6, state=4)
  p = initial(module)
  kernel = jax.jit(lambda v: module.apply(v, method="_shift_kernel"))({"params": p})
  taps = np.asarray(p["shift_C"]).copy()
  taps[:, 0] += p["shift_D"]
  np.testing.assert_allclose(kernel[::-1].T, taps, rtol=1e-6)


def test_initial_values():
  p = initial(H3(width=128, state=16, head_dim=2))
  np.testing.assert_array_equal(p["shift_B"], np.eye(16)[:1].repeat(128, 0))
  assert 0.24 < np.abs(p["shift_C"]).max() <= 0.25
  np.testing.assert_allclose(np.mean(p["shift_D"] ** 2), 1, rtol=0.3)
  ssm = p["ssm"]
  lam = -np.exp(ssm["A_log"]) + 1j * np.asarray(ssm["A_im"])
  np.testing.assert_allclose(lam, np.tile(-0.5 + 1j * np.pi * np.arange(8), (64, 1)), rtol=1e-5)
  np.testing.assert_allclose(np.mean(ssm["C_re"] ** 2 + ssm["C_im"] ** 2), 1, rtol=0.2)
