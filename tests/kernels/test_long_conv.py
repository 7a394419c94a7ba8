import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.long_conv import IMPLS, long_conv, xla
from tests.kernels.compare import DTYPES, QUICK, TOLERANCE, assert_close, draw, masks, spoil, values_and_gradients

B, E = 2, 3
FAST = [name for name in IMPLS if name != "reference"]
# tokens, taps forwards and backwards, masked or not
CASES = [
  (1, 1, 1, True),
  (63, 63, 0, False),
  (100, 120, 70, False),
  (100, 40, 33, False),
  (100, 9, 3, True),
  (100, 100, 40, True),
]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
  """Two levels of halves at 100 tokens."""
  monkeypatch.setattr(xla, "FEW_TAPS", 32)


def arrays(t, forwards, backwards, dtype="float32"):
  rng = np.random.default_rng(t)
  shapes = ((B, t, E), (E, forwards), *([(E, backwards)] if backwards else []))
  return tuple(draw(rng, shape, dtype) for shape in shapes)


def plain(impl):
  return lambda u, k, k_back=None, **masks: (long_conv(u, k, k_back=k_back, impl=impl, **masks),)


@functools.cache
def op(impl):
  return jax.jit(plain(impl), compiler_options=QUICK)


@functools.cache
def expected(t, forwards, backwards, masked, dtype):
  return values_and_gradients(plain("reference"), arrays(t, forwards, backwards, dtype), **masks(t) if masked else {})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("t, forwards, backwards, masked", CASES)
@pytest.mark.parametrize("impl", FAST)
def test_implementations_equal_the_reference(impl, t, forwards, backwards, masked, dtype):
  with jax.enable_x64(dtype == "float64"):
    (u, *k), where = arrays(t, forwards, backwards, dtype), masks(t) if masked else {}
    if masked:
      u = spoil(where["lengths"], u)
    got = values_and_gradients(plain(impl), (u, *k), **where)
    assert_close(got, expected(t, forwards, backwards, masked, dtype), TOLERANCE[dtype])


def alone(u, k, k_back):
  """The convolution of one document, by numpy."""
  t, y = u.shape[1], np.zeros_like(u)
  for b, e in np.ndindex(B, E):
    y[b, :, e] = np.convolve(u[b, :, e], k[e])[:t] + np.convolve(u[b, ::-1, e], k_back[e])[t - 1 :: -1]
  return y


def test_the_definition_is_a_convolution():
  u, k, k_back = arrays(9, 5, 4)
  (y,) = op("reference")(u, k, k_back)
  np.testing.assert_allclose(y, alone(u, k, k_back), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
def test_documents_do_not_see_each_other(impl):
  """At many document lengths, short and long."""
  t = 300
  u, k, k_back = arrays(t, t, t)
  starts = [0, 1, 2, 40, 128, 130, 200, 299]
  reset = np.isin(np.arange(t), starts)[None].repeat(B, 0)
  (y,) = op(impl)(u, k, k_back, reset=reset)
  for start, end in zip(starts, [*starts[1:], t]):
    np.testing.assert_allclose(y[:, start:end], alone(u[:, start:end], k, k_back), atol=2e-4)


@pytest.mark.parametrize("masked", [False, True])
def test_the_future_leaks_by_rounding_only(masked):
  u, k = arrays(100, 100, 0)
  where = {"reset": masks(100)["reset"]} if masked else {}
  jacobian = jax.jit(jax.jacobian(lambda u: jax.jit(plain("xla"))(u, k, **where)[0].sum((0, 2))))(u)
  size = np.abs(jacobian).max(axis=(1, 3))  # output time, input time
  assert np.triu(size, 1).max() <= 1e-6 * size.max()
  assert np.tril(size).max() > 0, "no output depends on its past"


def test_fast_sizes_are_the_smallest_products_of_2_3_5():
  smooth = sorted({2**i * 3**j * 5**k for i in range(13) for j in range(9) for k in range(7)})
  for least in (1, 2, 7, 11, 31, 127, 199, 2047, 3999):
    assert xla.fast_size(least) == min(n for n in smooth if n >= least)


def test_bfloat16_comes_back():
  u, k = arrays(100, 100, 0)
  (y,) = op("xla")(u.astype(jnp.bfloat16), k)
  assert y.dtype == jnp.bfloat16
  (exact,) = op("xla")(u, k)
  np.testing.assert_allclose(y.astype(np.float32), exact, atol=0.02 * np.abs(exact).max())
