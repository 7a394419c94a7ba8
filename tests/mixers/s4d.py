"""S4D: small sizes, parameter count, oracle, refusals; initial spectra, inputs and steps."""

import jax
import jax.numpy as jnp
import numpy as np

from ssm.lti import hippo
from ssm.lti.s4d import S4D
from tests.initial import variables

SMALL = {"": dict(state=6)}
ORACLE = {
  "": dict(state=6),
  "bilinear and shared": dict(state=6, A_init="inv", disc="bilinear", step_rescale=2.0, copies=2),
  "real": dict(state=4, A_init="real", activation="none"),
}
RESUMED = ("",)
SLOW = ("bilinear and shared",)
REFUSED = [
  (dict(state=7), "state=7; conjugate pairs are stored once, so it must be even"),
  (dict(copies=3), "copies=3 does not divide width=8"),
  (dict(A_init="fout"), "A_init='fout'; choose from ['lin', 'inv', 'legs', 'real']"),
  (dict(disc="euler"), "disc='euler'; choose from ['zoh', 'bilinear']"),
  (dict(activation="relu"), "activation='relu'; choose from"),
  (dict(dt_min=0.0), "dt_min=0.0, dt_max=0.1"),
  (dict(step_rescale=-1.0), "S4D: step_rescale=-1.0; it must be above 0"),
]
TRAINED = {"slow": {"A_log", "A_im", "B_re", "B_im", "log_dt"}}


def count(d, state):
  """A and B in every channel, C; D and dt; the map to 2d with bias."""
  return 3 * d * state + 2 * d + 2 * d * (d + 1)


def initial(width=512, **kwargs):
  module = S4D(width=width, activation="none", **kwargs)
  return jax.tree.map(np.asarray, variables(module)["params"])


def test_initial_spectra():
  n = np.arange(8)
  expected = {
    "lin": -0.5 + 1j * np.pi * n,
    "inv": -0.5 + 1j * 16 / np.pi * (16 / (2 * n + 1) - 1),
    "real": -(n + 1) + 0j,
    "legs": hippo.legs_normal(16).lam[:8],
  }
  for name, A in expected.items():
    p = initial(width=4, state=16, A_init=name)
    np.testing.assert_allclose(-np.exp(p["A_log"]) + 1j * p["A_im"], np.tile(A, (4, 1)), rtol=1e-6)
    if name != "legs":
      np.testing.assert_array_equal(p["B_re"] + 1j * p["B_im"], 1)


def test_a_kernel_at_half_the_rate_is_the_system_sampled_at_half_the_rate():
  """What is held for two samples is one sample of a system whose steps are twice as long: exactly so, for "zoh"."""
  module = S4D(width=4, state=8, activation="none")
  params = variables(module)
  x = jax.random.normal(jax.random.key(0), (1, 50, 4))
  whole = module.apply(params, jnp.repeat(x, 2, axis=1))
  half = module.clone(step_rescale=2.0).apply(params, x)
  np.testing.assert_allclose(half, whole[:, 1::2], atol=1e-5)
  assert np.abs(module.apply(params, x) - half).max() > 0.1


def test_the_first_frequencies_of_legs_approach_those_of_inv():
  """As N grows (sec. 4.1), from the fastest on."""
  n = np.arange(3)
  fastest = np.abs(hippo.legs_normal(128).lam[:3].imag)
  np.testing.assert_allclose(fastest, 128 / np.pi * (128 / (2 * n + 1) - 1), rtol=0.05)


def test_initial_input_of_legs_is_hippos_in_its_eigenbasis():
  p = initial(width=2, state=8, B_scale=0.5)
  lam, V = hippo.legs_normal(8)
  B = V.conj().T @ np.sqrt(2 * np.arange(8) + 1)
  np.testing.assert_allclose(p["B_re"][1], 0.5 * B.real[:4], rtol=1e-6)
  np.testing.assert_allclose(p["B_im"][1], 0.5 * np.clip(B.imag, -2, 2)[:4], rtol=1e-6)


def test_initial_variances_and_steps():
  p = initial(dt_min=1e-3, dt_max=1e-1)
  np.testing.assert_allclose(np.mean(p["C_re"] ** 2 + p["C_im"] ** 2), 1, rtol=0.03)
  np.testing.assert_allclose(np.mean(p["D"] ** 2), 1, rtol=0.2)
  np.testing.assert_allclose(np.log10(np.quantile(np.exp(p["log_dt"]), [0, 0.5, 1])), [-3, -2, -1], atol=0.1)


def test_shared_copies_have_one_a_and_b():
  p = initial(width=6, state=4, copies=2)
  assert {p[name].shape for name in ("A_log", "A_im", "B_re", "B_im")} == {(2, 2)}
  assert p["C_re"].shape == (6, 2)
