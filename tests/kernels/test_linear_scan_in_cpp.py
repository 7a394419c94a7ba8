"""`linear_scan` in C++: values and gradients against the definition."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.linear_scan import cpp as kernel
from kernels.linear_scan import linear_scan
from tests.kernels.compare import TOLERANCE, assert_close, draw, masks, spoil, values_and_gradients

pytestmark = pytest.mark.usefixtures("library")


def arrays(b, t, n, decay, dtype):
  rng = np.random.default_rng(t)
  a = draw(rng, (b, t, n) if decay == "varying" else (n,), np.dtype(dtype))
  return [0.95 * a / np.maximum(1, np.abs(a)), *(draw(rng, shape, np.dtype(dtype)) for shape in ((b, t, n), (b, n)))]


def op(impl):
  return lambda a, x, h, **where: linear_scan(a, x, h, impl=impl, **where)


# a part of a vector, whole ones, several and a part; two threads for one row
SIZES = [(2, 2, 3, False), (2, 40, 16, True), (2, 63, 37, True), (1, 20, 200, False)]


@pytest.mark.parametrize("b, t, n, masked", SIZES)
@pytest.mark.parametrize("decay", ["varying", "constant"])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_it_equals_the_definition(b, t, n, masked, decay, dtype, monkeypatch):
  monkeypatch.setattr(os, "cpu_count", lambda: 2)
  given, where = arrays(b, t, n, decay, dtype), masks(t) if masked else {}
  want = values_and_gradients(op("reference"), given, **where)
  if masked:
    given[1] = spoil(where["lengths"], given[1])
  assert_close(values_and_gradients(op("cpp"), given, **where), want, TOLERANCE["float32"])


def test_what_is_no_number_stays_in_its_document():
  a, x, h = arrays(2, 9, 5, "varying", "float32")
  x[0, 3, 1] = np.nan
  reset = np.zeros((2, 9), bool)
  reset[0, 6] = True
  y, last = op("cpp")(*map(jnp.asarray, (a, x, h)), reset=jnp.asarray(reset))
  bad = np.zeros((2, 9, 5), bool)
  bad[0, 3:6, 1] = True
  np.testing.assert_array_equal(np.isnan(y), bad)
  assert np.isfinite(last).all()


def test_under_vmap_each_row_is_as_alone():
  a, x, h = map(jnp.asarray, arrays(3, 12, 5, "varying", "complex64"))
  y, last = jax.vmap(lambda a, x, h: op("cpp")(a[None], x[None], h[None]))(a, x, h)
  want_y, want_last = op("cpp")(a, x, h)
  np.testing.assert_array_equal(y[:, 0], want_y)
  np.testing.assert_array_equal(last[:, 0], want_last)


def test_what_was_given_is_left_as_it_was():
  """Outputs may take the place of inputs that nobody reads again, and of no others."""
  a, x, h = map(jnp.asarray, arrays(2, 12, 5, "varying", "float32"))
  before = np.array(x)
  y, both = jax.jit(lambda a, x, h: (op("cpp")(a, x, h)[0], 2 * x))(a, x, h)
  np.testing.assert_array_equal(x, before)
  np.testing.assert_array_equal(both, 2 * before)
  np.testing.assert_allclose(y, op("reference")(a, x, h)[0], rtol=1e-5, atol=1e-6)


def test_other_numbers_are_refused():
  given = (jnp.asarray(z, jnp.bfloat16) for z in arrays(2, 3, 4, "constant", "float32"))
  assert kernel.why_not(*given, None) == "it computes in float32, not in ['bfloat16']"
