"""Powers of a diagonal transition: phases that stay right at any length, taps, and the System of a chunk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.lti import lti
from ssm.lti import diagonal, discretization

RNG = np.random.default_rng(0)


def some_log_A(e, n, dtype=np.complex64):
  """S4D-Lin with steps of 1e-3 to 0.1."""
  dt = np.exp(RNG.uniform(np.log(1e-3), np.log(0.1), (e, 1)))
  return (dt * (-0.5 + 1j * np.pi * np.arange(n))).astype(dtype)


def test_phases_are_right_to_1e_4_at_65536_tokens():
  log_A = some_log_A(256, 32)
  lags = np.array([0, 1, 4095, 40001, 65534, 65535])
  power = jax.jit(diagonal.powers)(1j * jnp.asarray(log_A.imag), jnp.asarray(lags))
  exact = log_A.imag.astype(float)[..., None] * lags
  assert exact.max() > 5e5
  assert np.abs(np.angle(np.asarray(power, complex) * np.exp(-1j * exact))).max() < 1e-4
  # one product in float32, as a plain exp(l log_A) has it, does not do
  naive = log_A.imag[..., None] * lags.astype(np.float32)
  assert np.abs(naive.astype(float) - exact).max() > 1e-2


def test_kernels_are_right_to_1e_4_of_their_envelope_at_every_lag():
  """65,536 taps in float32 against float64, at steps from 1e-3 to 0.1 and with decays from none to S4D's.

  Of the same float32 steps and eigenvalues: the rounding of their product, 0.04 rad here, is no part of the error.
  """
  l = 65536
  dt = np.array([[1e-3], [1e-2], [0.1], [0.1]], np.float32)
  A = np.tile(-0.5 + 1j * np.pi * np.arange(32), (4, 1)).astype(np.complex64)
  A[3].real = 0
  CB = (RNG.normal(size=(4, 32)) + 1j * RNG.normal(size=(4, 32))).astype(np.complex64)

  @jax.jit
  def taps(dt, A, CB):
    log_A, _ = discretization.zoh(dt, A)
    return diagonal.taps(log_A, CB, jnp.zeros(4), l, diagonal.turns(dt, A.imag))

  single = taps(dt, A, CB)
  double, envelope = np.zeros((4, l)), np.zeros((4, l))
  for n in range(32):
    exponent = dt.astype(float) * A[:, n, None].astype(complex) * np.arange(l)
    double += (CB[:, n, None] * np.exp(exponent)).real
    envelope += np.abs(CB[:, n, None]) * np.exp(exponent.real)
  assert single.dtype == jnp.float32
  # below the smallest numbers of float32 there is nothing left to be right
  assert (np.abs(single - double) <= 1e-4 * envelope + 1e-35).all()


@pytest.mark.parametrize("l", [1, 2, 7, 64, 100])
def test_taps_equal_their_sum(l):
  log_A, CB = some_log_A(3, 4), (RNG.normal(size=(3, 4)) + 1j * RNG.normal(size=(3, 4))).astype(np.complex64)
  expected = np.einsum("en,enl->el", CB, np.exp(log_A.astype(complex)[..., None] * np.arange(l))).real
  D = np.array([1, -2, 3], np.float32)
  expected[:, 0] += D
  np.testing.assert_allclose(
    jax.jit(diagonal.taps, static_argnums=3)(jnp.asarray(log_A), jnp.asarray(CB), jnp.asarray(D), l),
    expected,
    atol=2e-6,
  )


def test_gradients_go_through_the_phases():
  """In float32, where the phase has a rule of its own, as in float64, and as for the plain sum."""
  log_A = some_log_A(2, 3)
  lags = np.arange(20)

  def fast(re, im):
    return jnp.sum(
      jnp.sin(diagonal.taps(jax.lax.complex(re, im), jnp.ones_like(re) * (1 + 0j), jnp.zeros_like(re[:, 0]), 20))
    )

  def plain(re, im):
    return jnp.sum(jnp.sin(jnp.sum(jnp.exp(re[..., None] * lags) * jnp.cos(im[..., None] * lags), axis=1)))

  slopes = lambda f, dtype: jax.jit(jax.grad(f, (0, 1)))(*(jnp.asarray(z, dtype) for z in (log_A.real, log_A.imag)))
  single = slopes(fast, jnp.float32)
  with jax.enable_x64(True):
    double, expected = slopes(fast, jnp.float64), slopes(plain, jnp.float64)
  for i in range(2):
    np.testing.assert_allclose(double[i], expected[i], rtol=1e-10)
    np.testing.assert_allclose(single[i], expected[i], rtol=1e-3, atol=1e-3)


def test_system_is_the_recurrence():
  """With every field used: several chunks, a ragged end and a state."""
  e, n, t = 2, 3, 11
  log_A = some_log_A(e, n)
  B, C = ((RNG.normal(size=(e, n)) + 1j * RNG.normal(size=(e, n))).astype(np.complex64) for _ in range(2))
  D = RNG.normal(size=e).astype(np.float32)
  u, x = RNG.normal(size=(1, t, e)).astype(np.float32), (1 + 1j) * np.ones((1, e, n), np.complex64)

  @jax.jit
  def run(u, x, log_A, B, C, D):
    return lti(u, diagonal.system(diagonal.Recurrence(log_A, B, C, D), 4), x, reset=jnp.zeros((1, t), bool))

  y, last = run(u, x, log_A, B, C, D)
  A = np.exp(log_A.astype(complex))
  for time in range(t):
    x = A * x + B * u[:, time, :, None]
    np.testing.assert_allclose(y[:, time], np.sum(C * x, axis=-1).real + D * u[:, time], rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(last, x, rtol=1e-4, atol=1e-5)
