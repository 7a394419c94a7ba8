import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.short_conv import IMPLS, short_conv
from tests.kernels.compare import QUICK, draw

B, E = 2, 3


def arrays(t, w, dtype="float32"):
  rng = np.random.default_rng(t)
  return tuple(draw(rng, shape, dtype) for shape in ((B, t, E), (w, E), (B, w - 1, E), (E,)))


def plain(impl):
  return lambda x, kernel, taps, bias, **masks: short_conv(x, kernel, taps, bias=bias, impl=impl, **masks)


@functools.cache
def op(impl):
  return jax.jit(plain(impl), compiler_options=QUICK)


def test_the_definition_is_a_correlation():
  x, kernel, taps, bias = arrays(9, 4)
  y, last = op("reference")(x, kernel, taps, bias)
  whole = np.concatenate([taps, x], axis=1)
  for b in range(B):
    for e in range(E):
      np.testing.assert_allclose(y[b, :, e], np.correlate(whole[b, :, e], kernel[:, e]) + bias[e], rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(last, x[:, -3:])


@pytest.mark.parametrize("impl", IMPLS)
def test_a_row_without_tokens_keeps_its_taps(impl):
  x, kernel, taps, bias = arrays(9, 4)
  y, last = op(impl)(x, kernel, taps, bias, reset=np.ones((B, 9), bool), lengths=np.array([0, 9]))
  np.testing.assert_array_equal(last[0], taps[0])
  assert not y[0].any(), "outputs of a row without tokens"


@pytest.mark.parametrize("impl", IMPLS)
def test_dtypes_come_back_as_they_came(impl):
  x, kernel, taps, bias = arrays(9, 4)
  for given in (taps, taps.astype(jnp.bfloat16)):
    y, last = op(impl)(x.astype(jnp.bfloat16), kernel, given, bias)
    assert (y.dtype, last.dtype) == (jnp.bfloat16, given.dtype)


def test_taps_must_fit_the_kernel():
  x, kernel, taps, bias = arrays(9, 4)
  with pytest.raises(ValueError, match="3 taps carried for a kernel of width 3; it needs 2"):
    op("auto")(x, kernel[1:], taps, bias)
