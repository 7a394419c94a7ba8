"""No token reaches an earlier one, however large it is, inf and NaN included, in any causal mixer or form of an op."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import dispatch
from kernels.attention import attention
from kernels.long_conv import long_conv
from tests.contract.case import D, jit
from tests.kernels.ops import OPS
from tests.test_mixers import ALL, SIDE, SMALL, build, first_rows, state_of

# More tokens than the taps that are added up one by one; the large one is within a block of all ops.
T, AT = 80, 50
LATER = {"spike": 1e6, "inf": np.inf, "nan": np.nan}
CAUSAL = [row for row in SMALL if state_of(row) != "none"]
# One row for each kernel in the default suite.
FIRST = first_rows(CAUSAL, ALL)
ROWS = [row if row in FIRST else pytest.param(row, marks=pytest.mark.slow) for row in CAUSAL]


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


def causal_attention(q, k, v, **settings):
  return attention(q, k, v, **settings), None


HEADS = (jax.random.normal(key, (2, T, 2, 3)) for key in jax.random.split(jax.random.key(0), 3))
IN_BLOCKS = {name: (OPS[name].run, OPS[name].draw(T)) for name in OPS if name.startswith(("ssd", "gated", "delta"))}
IN_BLOCKS["attention"] = causal_attention, dict(zip("qkv", HEADS))
IN_BLOCKS["attention, softcap"] = lambda *z: causal_attention(*z, softcap=2.0, window=60), IN_BLOCKS["attention"][1]


@pytest.mark.parametrize("name", IN_BLOCKS)
def test_a_later_token_changes_no_gradient_of_earlier_outputs(name):
  """For ops that multiply masked blocks; the token is not finite in all or in one of the inputs."""
  op, arrays = IN_BLOCKS[name]
  tokens = [key for key, z in arrays.items() if z.shape[:2] == (2, T)]
  loss = lambda arrays: jnp.sum(jnp.sin(op(*arrays)[0][:, :AT]))
  run = jit(jax.grad(loss))

  def early(spoilt):
    spoil = lambda key, z: with_token(jnp.asarray(z), np.nan) if key in spoilt else z
    gradients = run([spoil(*item) for item in arrays.items()])
    return {key: np.asarray(z)[:, :AT] for key, z in zip(arrays, gradients) if key in tokens}

  want = early([])
  for spoilt in (tokens, *([key] for key in tokens)):
    got = early(spoilt)
    for key in tokens:
      np.testing.assert_allclose(got[key], want[key], rtol=1e-4, atol=1e-6, err_msg=f"{key}, NaN in {spoilt}")


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
