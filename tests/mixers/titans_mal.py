"""TitansMAL: small sizes, parameter count, oracle; attention over a memory's answers."""

import jax
import numpy as np
import pytest

from attention.recurrent.titans import Titans
from attention.recurrent.titans_mal import TitansMAL
from tests.initial import initial
from tests.mixers import titans

SMALL = {"": dict(heads=2, persistent=2, window=4, memory=dict(layers=1, chunk=3))}
ORACLE = {
  "": (
    dict(heads=1, persistent=2, window=3, memory=dict(heads=2, inner=3, chunk=4)),
    dict(memory=dict(heads=2, layers=2, chunk=4), attention=dict(heads=1, window=3, position="rope", persistent=2)),
  )
}
RESUMED = ("",)
REFUSED = [(dict(window=0), "window=0; it must be at least 1")]
# A memory and a window.
STATES = [
  (
    dict(width=64, heads=4, window=5),
    {"memory/weights/0": (1, 1, 64, 256), "memory/weights/1": (1, 1, 256, 64), "attention/kept/v": (1, 4, 5, 16)},
  )
]


X = jax.random.normal(jax.random.key(0), (2, 13, 8))


def count(d, persistent, memory, **_):
  """Four maps of attention and its persistent tokens; a memory."""
  return 4 * d * d + persistent * d + titans.count(d, **memory)


@pytest.mark.slow
def test_in_a_window_of_one_token_it_is_a_linear_map_of_the_memory():
  module = TitansMAL(width=8, heads=2, window=1, persistent=0, memory=dict(inner=3))
  p = initial(module)
  m = np.asarray(jax.jit(Titans(width=8, inner=3).apply)({"params": p["titans"]}, X))
  attention = p["attention"]
  want = m @ attention["v_proj"]["kernel"] @ attention["out_proj"]["kernel"]
  np.testing.assert_allclose(jax.jit(module.apply)({"params": p}, X), want, atol=1e-5)
