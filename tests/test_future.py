"""No token reaches an earlier one, however large it is, inf and NaN included, in any causal mixer or form of an op."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import dispatch
from kernels.long_conv import long_conv
from tests.contract.case import D, jit
from tests.contract.sizes import SIDE, SMALL
from tests.test_mixers import build, state_of

# More tokens than the taps that are added up one by one; the large one is within a block of all ops.
T, AT = 80, 50
LATER = {"spike": 1e6, "inf": np.inf, "nan": np.nan}
CAUSAL = [row for row in SMALL if state_of(row) != "none"]
ROWS = [pytest.param(row, marks=pytest.mark.slow) if "," in row else row for row in CAUSAL]


def with_token(x, value):
  return x.at[:, AT].set(value)


@pytest.mark.parametrize("row", ROWS)
def test_a_later_token_changes_no_output_of_a_mixer(row):
  module = build(row)
  x = jax.random.normal(jax.random.key(0), (1, T, D))
  side = {name: jnp.asarray(make(1, T), x.dtype) for name, make in SIDE.get(row, {}).items()}
  with dispatch.use("causal"):
    params = jit(lambda key: module.init(key, x[:, :1], side={k: v[:, :1] for k, v in side.items()} or None))(
      jax.random.key(1)
    )
    run = jit(lambda x: module.apply(params, x, side=side or None))
    before = np.asarray(run(x))[:, :AT]
    assert np.isfinite(before).all()
    for name, value in LATER.items():
      np.testing.assert_array_equal(np.asarray(run(with_token(x, value)))[:, :AT], before, err_msg=name)


@pytest.mark.parametrize("taps", [20, 200])
@pytest.mark.parametrize("impl", ["xla", "causal"])
def test_a_long_convolution_bounds_what_a_later_token_changes(impl, taps):
  """The form "causal": nothing; one FFT: 1e-6 of the token and the root of the sum of the squared taps."""
  u, k = jax.random.normal(jax.random.key(0), (1, 300, 4)), jax.random.normal(jax.random.key(1), (4, taps))
  run = jit(lambda u: long_conv(u, k, impl=impl))
  before = np.asarray(run(u))[:, :AT]
  exact = impl == "causal" or taps < 64
  for name, value in LATER.items():
    change = np.abs(np.asarray(run(with_token(u, value)))[:, :AT] - before)
    size = value if np.isfinite(value) else 10.0
    bound = 0 if exact else 1e-6 * size * np.sqrt(np.square(k).sum(axis=1))
    assert (change <= bound).all(), name


def test_the_form_without_an_fft_is_the_convolution():
  u, k = jax.random.normal(jax.random.key(0), (2, 300, 3)), jax.random.normal(jax.random.key(1), (3, 300))
  values = lambda impl: jit(jax.value_and_grad(lambda u, k: jnp.sum(jnp.sin(long_conv(u, k, impl=impl))), (0, 1)))(u, k)
  (got, slopes), (want, expected) = values("causal"), values("reference")
  np.testing.assert_allclose(got, want, rtol=1e-4)
  for one, other in zip(slopes, expected):
    np.testing.assert_allclose(one, other, atol=2e-3)
