"""Zero-order hold and Tustin's rule, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssm.lti import discretization

A = np.array([-0.5 + 0j, -0.5 + 3j, -1e-3 - 40j, -20 + 1j, -1e-8 + 0j], np.complex64)
DT = np.array([[1e-3], [1e-2], [0.1]], np.float32)


@pytest.mark.parametrize("rule", discretization.RULES)
def test_rules_equal_their_formulas(rule):
  log_A, gain = jax.jit(discretization.RULES[rule])(jnp.asarray(DT), jnp.asarray(A))
  z, dt = DT.astype(float) * A.astype(complex), DT.astype(float)
  if rule == "zoh":
    decay, expected = np.exp(z), np.expm1(z) / z * dt
  else:
    decay, expected = (1 + z / 2) / (1 - z / 2), dt / (1 - z / 2)
  np.testing.assert_allclose(np.exp(np.asarray(log_A)), decay, rtol=2e-6)
  np.testing.assert_allclose(gain, expected, rtol=2e-6)


GAP = np.array([[0.0], [0.5], [7.0]], np.float32)


def test_rules_for_events_equal_their_formulas():
  z, dt, gap = DT.astype(float) * A.astype(complex), DT.astype(float), GAP.astype(float)
  for rule, expected in {
    "zoh": (np.exp(gap * z), np.expm1(gap * z) / z * dt),
    "bilinear": ((1 + gap * z / 2) / (1 - gap * z / 2), gap * dt / (1 - gap * z / 2)),
    "dirac": (np.exp(gap * z), np.ones_like(z)),
    "async": (np.exp(gap * z), np.expm1(z) / z * dt),
  }.items():
    log_A, gain = jax.jit(discretization.EVENT_RULES[rule])(jnp.asarray(DT), jnp.asarray(A), jnp.asarray(GAP))
    np.testing.assert_allclose(np.exp(np.asarray(log_A)), expected[0], rtol=4e-6, err_msg=rule)
    np.testing.assert_allclose(gain, expected[1], rtol=4e-6, atol=1e-9, err_msg=rule)


@pytest.mark.parametrize("rule", discretization.EVENT_RULES)
def test_every_rule_has_its_limit_and_finite_gradients_at_zero(rule):
  """A = 0 and dt = 0, apart and together: Abar = 1 and the gains of an integrator."""

  def out(dt, a):
    log_A, gain = discretization.EVENT_RULES[rule](dt, jax.lax.complex(a, 0 * a), jnp.array(2.0))
    return jnp.stack([jnp.exp(log_A).real, gain.real])

  for dt, a in ((0.5, 0.0), (0.0, -1.0), (0.0, 0.0)):
    gain = {"dirac": 1.0, "async": dt}.get(rule, 2 * dt)
    np.testing.assert_allclose(jax.jit(out)(dt, a), [1, gain], rtol=1e-6)
    assert np.isfinite(jax.jit(jax.jacobian(out, (0, 1)))(dt, a)).all()


def test_bilinear_keeps_slow_decay_where_float32_would_round_it_away():
  log_A, _ = discretization.bilinear(jnp.array(1e-3), jnp.array(-1e-3 + 0j))
  np.testing.assert_allclose(log_A.real, -1e-6, rtol=1e-5)


def test_bilinear_is_finite_where_it_forgets_everything():
  """1 + dt A/2 = 0, and beyond, where Abar is negative."""
  loss = jax.jit(lambda a: jnp.exp(discretization.bilinear(jnp.array(0.1), a * (1 + 0j))[0]).real)
  np.testing.assert_allclose(loss(jnp.array(-20.0)), 0, atol=1e-3)
  np.testing.assert_allclose(loss(jnp.array(-60.0)), -0.5, rtol=1e-5)
  assert np.isfinite(jax.grad(loss)(jnp.array(-20.0)))


def test_phi1_is_smooth_through_zero():
  """Against the series, on both sides of where the code changes over to it."""
  size = np.array([0, 1e-20, 1e-4, 0.031, 0.032, 0.1, 1.0], np.float32)
  z = size * np.exp(1j * np.linspace(2, 4, size.size)).astype(np.complex64)
  terms = [z.astype(complex) ** k / np.prod(np.arange(1, k + 2.0)) for k in range(25)]
  np.testing.assert_allclose(jax.jit(discretization.phi1)(jnp.asarray(z)), sum(terms), rtol=3e-6)
  slope = jax.jit(jax.vmap(jax.grad(discretization.phi1, holomorphic=True)))(jnp.asarray(z))
  series = sum((k + 1) * term / (k + 2) for k, term in enumerate(terms))
  np.testing.assert_allclose(slope, series, rtol=1e-4)
