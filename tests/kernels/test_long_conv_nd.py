import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.long_conv import ND_IMPLS, long_conv_nd
from tests.kernels.compare import DTYPES, QUICK, TOLERANCE, assert_close, draw, values_and_gradients

B, E = 2, 3
# sides, taps, origin: causal, two-sided, looking ahead along one axis; more taps than places
CASES = [
  ((1,), (1,), (0,)),
  ((63,), (9,), (4,)),
  ((5, 7), (9, 13), (4, 6)),
  ((6, 10), (6, 3), (0, 2)),
  ((4, 1), (5, 4), (0, 3)),
  ((3, 2, 5), (5, 2, 3), (2, 0, 1)),
]


def arrays(sides, taps, dtype):
  rng = np.random.default_rng(0)
  return draw(rng, (B, *sides, E), dtype), draw(rng, (E, *taps), dtype)


def op(impl, origin):
  return lambda u, k: (long_conv_nd(u, k, origin=origin, impl=impl),)


@functools.cache
def run(impl, origin):
  return jax.jit(op(impl, origin), compiler_options=QUICK)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sides, taps, origin", CASES)
def test_implementations_equal_the_reference(sides, taps, origin, dtype):
  with jax.enable_x64(dtype == "float64"):
    given = arrays(sides, taps, dtype)
    want = values_and_gradients(op("reference", origin), given)
    assert_close(values_and_gradients(op("xla", origin), given), want, TOLERANCE[dtype])


@pytest.mark.parametrize("impl", ND_IMPLS)
@pytest.mark.parametrize("sides, taps, origin", [CASES[2], CASES[3], CASES[5]])
def test_it_is_the_loop_over_all_places(impl, sides, taps, origin):
  u, k = arrays(sides, taps, "float32")
  y = np.zeros_like(u)
  for p in np.ndindex(*sides):
    for s in np.ndindex(*sides):
      tap = tuple(np.array(p) - s + origin)
      if all(0 <= index < size for index, size in zip(tap, taps)):
        y[(slice(None), *p)] += k[(slice(None), *tap)] * u[(slice(None), *s)]
  np.testing.assert_allclose(run(impl, origin)(u, k)[0], y, rtol=1e-4, atol=1e-4)


def test_bfloat16_comes_back():
  u, k = arrays((5, 7), (9, 13), "float32")
  (y,) = run("xla", (4, 6))(u.astype(jnp.bfloat16), k)
  assert y.dtype == jnp.bfloat16
  exact = run("xla", (4, 6))(u, k)[0]
  np.testing.assert_allclose(y.astype(np.float32), exact, atol=0.02 * np.abs(exact).max())


def test_axes_that_do_not_fit_are_named():
  u, k = arrays((5, 7), (9, 13), "float32")
  u, k = jnp.asarray(u), jnp.asarray(k)
  with pytest.raises(ValueError, match="u has 2 axes to convolve, k has 2, origin has 1"):
    long_conv_nd(u, k, origin=(0,))
  with pytest.raises(ValueError, match=r"origin=\(9, 0\) is no index of taps of shape \(9, 13\)"):
    long_conv_nd(u, k, origin=(9, 0))
