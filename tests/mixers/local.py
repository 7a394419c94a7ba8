"""Local attention: small sizes, parameter count, oracle, refusals; its ring, and what it is a special case of."""

import functools

import jax
import numpy as np
import pytest

from attention.local import LocalAttention
from attention.softmax import Attention
from tests.initial import variables
from tests.mixers import softmax
from tests.stepped import stepped

SMALL = {"": dict(heads=2, window=5)}
ORACLE = {"": (dict(heads=2, window=5), dict(kv_heads=1, position="rope", turned=2))}
REFUSED = [
  (dict(window=None), "LocalAttention: window=None, mask='causal'; without a window use 'softmax'"),
  (dict(mask="full"), "LocalAttention: window=2048, mask='full'"),
  (dict(window=0), "LocalAttention: window=0; it must be at least 1"),
  (dict(heads=3), "LocalAttention: heads=3 does not divide width=8"),
  (dict(heads=4), "LocalAttention: heads=4 of width=8 have size 2; "),
  (dict(heads=4), "rotary=0.5 of that is 1"),
]


X = jax.random.normal(jax.random.key(1), (2, 23, 8))


def count(d, heads, **_):
  return softmax.count(d, heads, kv_heads=1, bias="out")


@functools.cache
def ready(**kwargs):
  module = LocalAttention(width=8, heads=2, **kwargs)
  return module, variables(module, X)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("int8", 0.02)])
def test_a_ring_of_the_window_goes_on_for_ever(dtype, tolerance):
  """Several times around; token i of the document stands in slot i modulo the window."""
  module, variables = ready(window=5, cache_dtype=dtype)
  state = module.init_state(2, 3)
  assert state.segment.shape == (2, 5)
  y, states = stepped(module, variables, X, state)
  np.testing.assert_allclose(y, jax.jit(module.apply)(variables, X), atol=tolerance)
  np.testing.assert_array_equal(states[-1].position, [[20, 21, 22, 18, 19]] * 2)


def test_it_is_attention_with_other_defaults():
  module, variables = ready(window=6)
  same = Attention(width=8, heads=2, kv_heads=1, window=6, position="rope", rotary=0.5, bias="out")
  np.testing.assert_array_equal(*(jax.jit(z.apply)(variables, X) for z in (module, same)))


@pytest.mark.parametrize("width, heads", [(2560, 10), (4096, 8), (48, 6), (8, 2)])
def test_derived_heads_leave_halves_that_can_be_turned(width, heads):
  assert LocalAttention(width=width)._sizes == (heads, 1, width // heads)
