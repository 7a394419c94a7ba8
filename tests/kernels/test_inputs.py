import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import inputs
from tests.kernels.compare import draw


@pytest.mark.optimized
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(2, 37, 2, 5), (2, 300, 1, 8), (1, 512, 4, 64), (2, 600, 1)])
def test_a_token_is_finite_if_all_its_entries_are(shape, dtype):
  """In small arrays and in those whose sums XLA vectorises."""
  z = np.array(draw(np.random.default_rng(0), shape, "float32"))
  bad = {5: np.nan, 30: np.inf, 31: -np.inf}
  for place, number in bad.items():
    z[0, place].flat[-1] = number
  expected = np.ones(shape[:2], bool)
  expected[0, list(bad)] = False
  np.testing.assert_array_equal(jax.jit(inputs.finite)(jnp.asarray(z, dtype)), expected)
