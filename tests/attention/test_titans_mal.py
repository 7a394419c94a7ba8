"""MAL: attention over a memory's answers."""

import jax
import numpy as np
import pytest

from attention.recurrent.titans import Titans
from attention.recurrent.titans_mal import TitansMAL
from tests.initial import initial

X = jax.random.normal(jax.random.key(0), (2, 13, 8))


@pytest.mark.slow
def test_in_a_window_of_one_token_it_is_a_linear_map_of_the_memory():
  module = TitansMAL(width=8, heads=2, window=1, persistent=0, memory=dict(inner=3))
  p = initial(module)
  m = np.asarray(jax.jit(Titans(width=8, inner=3).apply)({"params": p["titans"]}, X))
  attention = p["attention"]
  want = m @ attention["v_proj"]["kernel"] @ attention["out_proj"]["kernel"]
  np.testing.assert_allclose(jax.jit(module.apply)({"params": p}, X), want, atol=1e-5)


def test_its_state_is_a_memory_and_a_window():
  state = TitansMAL(width=64, heads=4, window=5).init_state(3, 100)
  assert [W.shape for W in state.memory.weights] == [(3, 1, 64, 256), (3, 1, 256, 64)]
  assert state.attention.kept["v"].shape == (3, 4, 5, 16)
