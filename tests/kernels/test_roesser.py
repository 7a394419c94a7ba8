import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.roesser import roesser
from tests.kernels.compare import QUICK, TOLERANCE, assert_close, draw, values_and_gradients

E, N = 2, 3


def arrays(dtype):
  rng = np.random.default_rng(0)
  return tuple(0.5 * draw(rng, (k, E, N), dtype) for k in (4, 2, 2))


def op(impl, rows, columns, inside):
  return lambda A, B, C: (roesser(A, B, C, rows, columns, inside=inside, impl=impl),)


@pytest.mark.parametrize("dtype", ["float32", "complex64", "float64", "complex128"])
@pytest.mark.parametrize("rows, columns, inside", [(1, 1, 1.0), (1, 5, 0.5), (4, 1, 0.5), (4, 5, 1.0), (3, 4, 0.5)])
def test_implementations_equal_the_reference(rows, columns, inside, dtype):
  exact = dtype in ("float64", "complex128")
  with jax.enable_x64(exact):
    want = values_and_gradients(op("reference", rows, columns, inside), arrays(dtype))
    got = values_and_gradients(op("xla", rows, columns, inside), arrays(dtype))
    assert_close(got, want, TOLERANCE["float64" if exact else "float32"])


def test_without_coupling_the_states_run_along_the_edges():
  A, B, C = (jnp.asarray(z) for z in arrays("float32"))
  K = roesser(A.at[1:3].set(0), B, C, 4, 5)
  along, down = (np.sum(C[s] * B[s] * A[a] ** np.arange(7)[:, None, None], axis=-1) for s, a in ((0, 0), (1, 3)))
  np.testing.assert_allclose(K[:, 0, 1:], along[1:5].T, rtol=1e-5)
  np.testing.assert_allclose(K[:, 1:, 0], down[1:4].T, rtol=1e-5)
  np.testing.assert_allclose(K[:, 0, 0], along[0] + down[0], rtol=1e-5)
  assert not K[:, 1:, 1:].any()


def test_means_inside_do_not_grow():
  """At |A| = 1 all paths count fully: sums inside double with every step, means stay."""
  ones = (jnp.ones((k, 1, 1)) for k in (4, 2, 2))
  A, B, C = ones
  run = lambda inside: jax.jit(lambda: roesser(A, B, C, 9, 9, inside=inside), compiler_options=QUICK)()
  assert run(1.0).max() > 1e4
  np.testing.assert_allclose(run(0.5).max(), 2, rtol=1e-5)


def test_sides_below_one_are_named():
  with pytest.raises(ValueError, match="rows=0, columns=3; both must be at least 1"):
    roesser(*(jnp.asarray(z) for z in arrays("float32")), 0, 3)
