import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.cauchy import IMPLS, cauchy
from tests.kernels.compare import DTYPES, TOLERANCE, assert_close, draw, values_and_gradients

FAST = [name for name in IMPLS if name != "reference"]


def arrays(m, dtype):
  """Poles left of the axis, and points all along it, 0 and infinity among them."""
  rng = np.random.default_rng(m)
  inner = np.result_type(dtype, np.complex64)
  a = draw(rng, (2, 5), inner)
  a = -np.abs(a.real) - 0.1 + 1j * a.imag
  angle = np.linspace(np.pi / 2, 0, m)
  p, q = np.sin(angle), np.cos(angle)
  q[0] = 0
  return (draw(rng, (2, 3, 5), inner), a.astype(inner)), (p.astype(dtype), q.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 63, 100])
@pytest.mark.parametrize("impl", FAST)
def test_implementations_equal_the_reference(impl, m, dtype):
  with jax.enable_x64(dtype == "float64"):
    given, points = jax.tree.map(jnp.asarray, arrays(m, dtype))
    run = lambda impl: values_and_gradients(lambda v, a: (cauchy(v, a, *points, impl=impl),), given)
    assert_close(run(impl), run("reference"), TOLERANCE[dtype])


@pytest.mark.parametrize("impl", IMPLS)
def test_sums_are_those_of_the_equation_also_at_infinity(impl):
  (v, a), (p, q) = jax.tree.map(jnp.asarray, arrays(7, np.float32))
  expected = np.zeros((2, 3, 7), complex)
  for n in range(5):
    for m in range(7):
      expected[..., m] += v[..., n] / (1j * p[m] - q[m] * a[:, None, n])
      expected[..., m] += v[..., n].conj() / (1j * p[m] - q[m] * a[:, None, n].conj())
  np.testing.assert_allclose(cauchy(v, a, p, q, impl=impl), expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(expected[..., 0], 2 * v.sum(-1).real / 1j, atol=1e-5)


@pytest.mark.optimized
def test_the_terms_are_not_written_down():
  e, k, n, m = 8, 4, 32, 4096
  shapes = ((e, k, n), np.complex64), ((e, n), np.complex64), ((m,), np.float32), ((m,), np.float32)
  given = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
  loss = lambda *z: jnp.sum(jnp.abs(cauchy(*z, impl="xla")) ** 2)
  stats = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*given).compile().memory_analysis()
  terms = e * n * m * 8
  assert stats.temp_size_in_bytes < terms / 2, f"{stats.temp_size_in_bytes} bytes; all terms take {terms}"
