"""FNet: its transform over rows of any lengths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.dft import dft

SMALL = {"": {}}
ORACLE = {"": {}}
REFUSED = [(dict(width=0), "width=0; it must be at least 1")]


def count(d):
  return 0


def test_rows_of_every_length_are_transformed_as_alone():
  """Powers of two and primes, 0 and 1; what lies past a row's length, NaN, reaches nothing."""
  t = 32
  lengths = jnp.arange(t + 1)
  z = jax.random.normal(jax.random.key(0), (t + 1, t, 2)) + 1j
  z = jnp.where((jnp.arange(t) < lengths[:, None])[..., None], z, jnp.nan)
  got, z = np.asarray(jax.jit(dft)(z, lengths)), np.asarray(z, np.complex128)
  for n in range(t + 1):
    assert not got[n, n:].any()
    if n:
      np.testing.assert_allclose(got[n, :n], np.fft.fft(z[n, :n], axis=0), atol=2e-5)


def test_long_rows_keep_their_digits():
  """Angles are reduced before they are rounded: s^2 has 32 bits here."""
  t, n = 1 << 16, 50021
  z = np.random.default_rng(0).standard_normal((1, t, 1)).astype(np.complex64)
  got = np.asarray(jax.jit(dft)(z, jnp.array([n])))[0, :n]
  want = np.fft.fft(z[0, :n].astype(np.complex128), axis=0)
  assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


def test_more_places_than_their_squares_fit_are_refused():
  z = jax.ShapeDtypeStruct((1, 2**19 + 1, 1), jnp.complex64)
  with pytest.raises(ValueError, match="524289 places"):
    jax.eval_shape(dft, z, jnp.array([3]))
