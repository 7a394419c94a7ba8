"""LRU: small sizes, parameter count, oracle, refusals; its ring, its normalisation, its bounded eigenvalues."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from layers.initializers import ring
from ssm.lti.lru import LRU
from tests.initial import made, normal

SMALL = {"": dict(state=6)}
ORACLE = {"": dict(state=6), "plain": dict(state=5, activation="none")}
REFUSED = [
  (dict(state=0), "state=0; it must be at least 1"),
  (dict(r_min=0.9, r_max=0.5), "r_min=0.9, r_max=0.5: a ring needs"),
  (dict(r_max=1.5), "r_min=0.0, r_max=1.5: a ring needs"),
  (dict(max_phase=0.0), "max_phase=0.0; phases need 0 < max_phase"),
  (dict(activation="glu"), "activation='glu'; choose from ['half_glu1'"),
]
INITIAL = [
  (
    dict(width=200, state=300),
    {"B_re B_im": normal(400**-0.5, 0.025), "C_re C_im": normal(300**-0.5, 0.025), "D": normal(1, 0.15)},
  )
]
TRAINED = {"slow": {"nu_log", "theta_log", "gamma_log", "B_re", "B_im"}}


def count(d, state):
  """lam, gamma; B, C; D; the two maps with bias."""
  return 3 * state + 4 * state * d + d + 2 * d * (d + 1)


initial = functools.partial(made, LRU)


def spectrum(p):
  return np.exp(-np.exp(np.asarray(p["nu_log"], float)) + 1j * np.exp(np.asarray(p["theta_log"], float)))


@pytest.mark.parametrize("r_min, r_max, max_phase", [(0.0, 1.0, 2 * np.pi), (0.9, 0.999, np.pi / 10)])
def test_eigenvalues_start_uniform_over_the_ring(r_min, r_max, max_phase):
  """Squared radii and phases are uniform, so their sorted values lie on a line (5,000 draws: within 0.03)."""
  lam = spectrum(initial(2, state=5000, r_min=r_min, r_max=r_max, max_phase=max_phase)[1]["params"])
  area = (np.abs(lam) ** 2 - r_min**2) / (r_max**2 - r_min**2)
  phase = np.mod(np.angle(lam), 2 * np.pi) / max_phase
  line = (np.arange(5000) + 0.5) / 5000
  for values in (area, phase):
    np.testing.assert_allclose(np.sort(values), line, atol=0.03)
  assert abs(np.corrcoef(area, phase)[0, 1]) < 0.05


def test_gamma_starts_as_the_normaliser():
  """gamma^2 = 1 - |lam|^2, to all digits also next to the unit circle, where 1 - |lam|^2 by itself has three left."""
  p = initial(2, state=1000, r_min=0.999, r_max=0.9999)[1]["params"]
  lost = -np.expm1(-2 * np.exp(np.asarray(p["nu_log"], float)))
  np.testing.assert_allclose(np.exp(2 * np.asarray(p["gamma_log"], float)), lost, rtol=2e-5)


def test_states_start_with_the_variance_of_their_input():
  """White noise of variance 1 gives E|h|^2 = 1 in every state, which is the purpose of gamma     sec. 3.4."""
  module, variables = initial(64, state=32, r_min=0.5, r_max=0.99)
  x = jax.random.normal(jax.random.key(1), (64, 400, 64))
  prefill = jax.jit(functools.partial(module.apply, method="prefill"))
  h = prefill(variables, x, module.init_state(64, 400))[1].h
  np.testing.assert_allclose(np.mean(np.abs(h) ** 2), 1, rtol=0.1)


def test_draws_at_the_ends_of_the_ring_stay_finite():
  """A million draws over the whole disc: the extreme ones still have finite logarithms of logarithms."""
  nu = ring(0.0, 1.0)(jax.random.key(0), (1_000_000,), jnp.float32)
  assert np.isfinite(np.log(nu)).all()
  assert (np.exp(-nu) < 1).all()


def test_no_parameter_makes_the_state_grow():
  module, variables = initial(4, state=8)
  variables["params"]["nu_log"] = jnp.linspace(-80.0, 80.0, 8)
  ones = module.init_state(1, 1)._replace(h=jnp.ones((1, 8), complex))
  _, state = jax.jit(functools.partial(module.apply, method="step"))(variables, jnp.zeros((1, 4)), ones)
  assert (np.abs(state.h) < 1 + 2e-7).all()  # cos^2 + sin^2 in float32
