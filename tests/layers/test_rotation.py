import jax
import jax.numpy as jnp
import numpy as np

from layers.rotation import rotate, turns, unit

ROWS, T = 2, 4096


def angles():
  """From slow to a third of a circle a token, mostly one way: sums of up to 2000 radians."""
  rng = np.random.default_rng(0)
  return (rng.uniform(-0.1, 1, (ROWS, T, 3)) * [0.01, 0.1, 1]).astype(np.float32)


def test_turns_are_exponentials_of_sums():
  """To 1e-5 over 4096 tokens in float32, where sums of angles of this size would be off by 1e-3."""
  got = jax.jit(turns)(angles(), jnp.ones((ROWS, 3), complex))
  np.testing.assert_allclose(np.abs(got), 1, rtol=3e-7)
  exact = np.exp(1j * np.cumsum(angles().astype(np.float64), axis=1))
  assert np.abs(got - exact).max() < 1e-5


def test_turns_go_on_and_start_again():
  angle, before = angles()[:, :8], np.exp(1j * angles()[:, 9]).astype(np.complex64)
  reset = np.zeros((ROWS, 8), bool)
  reset[0, 5] = reset[1, 0] = True
  got = jax.jit(turns)(angle, before, reset)
  sums = np.cumsum(angle, axis=1)
  np.testing.assert_allclose(got[0, :5], before[0] * np.exp(1j * sums[0, :5]), atol=1e-6)
  np.testing.assert_allclose(got[0, 5:], np.exp(1j * (sums[0, 5:] - sums[0, 4])), atol=1e-6)
  np.testing.assert_allclose(got[1], np.exp(1j * sums[1]), atol=1e-6)


def test_neighbours_turn_and_the_rest_stays():
  z, angle = np.arange(1.0, 6.0, dtype=np.float32), np.array([np.pi / 2, np.pi], np.float32)
  np.testing.assert_allclose(rotate(jnp.asarray(z), jnp.exp(1j * angle)), [-2, 1, -3, -4, 5], atol=1e-6)


def test_products_depend_on_the_difference_of_turns():
  rng = np.random.default_rng(0)
  q, k = jnp.asarray(rng.standard_normal((2, 6)), jnp.float32)
  a, b = jnp.exp(1j * rng.uniform(0, 6, (2, 3)).astype(np.float32))
  np.testing.assert_allclose(rotate(q, a) @ rotate(k, b), rotate(q, unit(a / b)) @ k, rtol=1e-5)
