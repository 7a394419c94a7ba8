import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.max_scan import EMPTY, max_scan
from tests.kernels.compare import QUICK, masks

IMPLS = ("reference", "associative")  # "xla" is the former
op = jax.jit(max_scan, static_argnames="impl", compiler_options=QUICK)


def arrays(t, dtype=np.float32):
  """Decays near 0 and near 1, weights of all sizes; one row with nothing before."""
  rng = np.random.default_rng(t)
  m = np.where([[True], [False]], EMPTY, rng.standard_normal((2, 3)))
  log_a = -(10.0 ** rng.uniform(-6, 2, (2, t, 3)))
  return tuple(z.astype(dtype) for z in (log_a, 30 * rng.standard_normal((2, t, 3)), m))


def loop(log_a, x, m, reset, lengths):
  found = np.zeros_like(x)
  for row, last in enumerate(m):
    for t in range(x.shape[1]):
      if t < lengths[row]:
        last = x[row, t] if reset[row, t] else np.maximum(log_a[row, t] + last, x[row, t])
      found[row, t] = last
  return found


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("t", [1, 63, 100])
def test_implementations_are_the_recurrence(impl, t):
  given, where = arrays(t), masks(t)
  np.testing.assert_allclose(op(*given, **where, impl=impl), loop(*given, **where), rtol=1e-6, atol=1e-5)
  whole = dict(reset=np.zeros((2, t), bool), lengths=np.full(2, t))
  np.testing.assert_allclose(op(*given, impl=impl), loop(*given, **whole), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
def test_what_is_past_the_lengths_is_not_read(impl):
  log_a, x, m = arrays(8)
  past = np.arange(8) >= np.array([[0], [5]])
  spoilt = (np.where(past[..., None], np.float32(np.nan), z) for z in (log_a, x))
  got = op(*spoilt, m, reset=past, lengths=np.array([0, 5]), impl=impl)
  np.testing.assert_allclose(got, loop(log_a, x, m, np.zeros((2, 8), bool), [0, 5]), atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_document_that_is_not_finite_spoils_no_other(impl, bad):
  """Neither from an earlier call nor by its tokens, and a single token that starts a document counts alone."""
  log_a, x, m = arrays(8)
  reset = np.zeros((2, 8), bool)
  reset[:, [2, 5]] = True
  m[0], x[0, 3, 1], log_a[1, 6, 2] = bad, bad, -np.inf
  got = np.array(op(log_a, x, m, reset=reset, impl=impl))
  bad_outputs = ~np.isfinite(got).all(axis=-1)
  np.testing.assert_array_equal(bad_outputs[0], [True, True, False, True, True, False, False, False])
  assert not bad_outputs[1].any()
  want = loop(log_a, x, m, reset, [8, 8])
  np.testing.assert_allclose(got[~bad_outputs], want[~bad_outputs], atol=1e-5)
  one = op(log_a[:, 2:3], x[:, 2:3], m, reset=reset[:, 2:3], impl=impl)
  np.testing.assert_array_equal(one, x[:, 2:3])


def test_no_tokens_are_no_maxima():
  log_a, x, m = arrays(8)
  assert op(log_a[:, :0], x[:, :0], m, reset=np.zeros((2, 0), bool)).shape == (2, 0, 3)


def test_float64_stays_and_bfloat16_is_widened():
  with jax.enable_x64(True):
    assert op(*arrays(3, np.float64)).dtype == jnp.float64
  assert op(*(jnp.asarray(z, jnp.bfloat16) for z in arrays(3))).dtype == jnp.float32


def test_it_has_no_gradient():
  given = tuple(map(jnp.asarray, arrays(5)))
  for bar in jax.jit(jax.grad(lambda *z: max_scan(*z).sum(), argnums=(0, 1, 2)))(*given):
    assert not bar.any()
