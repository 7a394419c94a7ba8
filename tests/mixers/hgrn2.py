"""HGRN2: initial values, and the lower bound of its decays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.recurrent.hgrn2 import HGRN2
from tests.initial import initial

SMALL = {"": dict(head_size=4)}
ORACLE = {"": (dict(head_size=4), dict(heads=2)), "second layer": (dict(layer=1, depth=3), dict(heads=1))}
TRAINED = {"slow": {"bound"}}
REFUSED = [
  (dict(head_size=3), "head_size=3 does not divide width=8"),
  (dict(depth=0), "depth=0; it must be at least 1"),
]
STATES = [(dict(width=1024), {"S": (1, 8, 128, 128)})]


def count(d, head_size):
  """Queries, decays, values and out; lower bounds; the norm."""
  return 4 * d * d + 2 * d


@pytest.mark.parametrize("layer, bound", [(0, 1e-3), (1, 0.25), (3, 0.75)])
def test_lower_bounds_rise_with_the_layer(layer, bound):
  p = initial(HGRN2(width=16, layer=layer, depth=4))
  np.testing.assert_allclose(jax.nn.sigmoid(p["bound"]), np.full(16, bound), rtol=1e-5)
  np.testing.assert_allclose(np.abs(p["q_proj"]["kernel"]).max(), 1 / 4, rtol=0.1)
  np.testing.assert_allclose(np.abs(p["out_proj"]["kernel"]).max(), 1 / 8, rtol=0.1)


def test_nothing_is_forgotten_faster_than_the_bound_allows():
  """With a gate at its limit the decay is the bound, and a channel is a weighted mean: its weights sum to 1."""
  module = HGRN2(width=4, layer=1, depth=2)
  p = initial(module)
  p["f_proj"]["kernel"] = -1e4 * np.eye(4, dtype=np.float32)
  p["i_proj"]["kernel"] = np.eye(4, dtype=np.float32)
  state = module.init_state(1, 1)._replace(S=np.full((1, 1, 4, 4), 2, np.float32))
  _, state = jax.jit(lambda s: module.apply({"params": p}, jnp.ones((1, 4)), s, method="step"))(state)
  np.testing.assert_allclose(state.S, np.full((1, 1, 4, 4), 0.5 * 2 + 0.5 * 1), rtol=1e-6)
