"""Based: its weights and sizes, and a model that alternates it with attention in a window."""

import jax
import jax.numpy as jnp
import numpy as np

from attention.recurrent.based import Based, taylor
from hybrids.mixer import build
from tests.initial import initial, shaped, uniform
from tests.stepped import stepped

SMALL = {"": dict(heads=2, key_size=3)}
ORACLE = {"": dict(heads=2, key_size=3), "one channel a head": (dict(key_size=4), dict(heads=8))}
REFUSED = [
  (dict(heads=3), "heads=3 does not divide width=8"),
  (dict(key_size=0), "key_size=0; it must be at least 1"),
  (dict(depth=0), "depth=0; it must be at least 1"),
]
INITIAL = [
  (dict(width=256, depth=4), {"q_proj v_proj": uniform(1 / 16, 0.01), "out_proj": uniform(1 / 32, 0.01)}),
  (dict(width=256), {"q_proj v_proj out_proj": shaped(256, 256)}),
]
# Sixteen heads of 16 keys; 273 features less the duplicates; a divisor beside each head's values.
STATES = [(dict(width=1024), {"S": (1, 16, 273 - 16 * 15 // 2, 64 + 1)})]


def count(d, heads, key_size):
  """Queries and keys; values and out."""
  return 2 * d * heads * key_size + 2 * d * d


def test_weights_are_the_taylor_polynomial_of_the_exponential():
  """Weights are at least 1/2, whatever queries and keys are."""
  rng = np.random.default_rng(0)
  q, k = 3 * rng.standard_normal((2, 1000, 5)).astype(np.float32)
  z = np.sum(q * k, axis=-1) / 5**0.5
  weights = np.asarray(jax.jit(lambda q, k: jnp.sum(taylor(q) * taylor(k), axis=-1))(q, k))
  np.testing.assert_allclose(weights, 1 + z + z**2 / 2, atol=2e-6 * (z**2).max())
  assert 0.5 <= weights.min() < 0.51
  near = abs(z) < 0.1
  np.testing.assert_allclose(weights[near], np.exp(z[near]), rtol=2e-4)


def test_an_output_is_a_mean_of_values():
  """Weights sum to 1: if all values are equal, so is every output, however long the document."""
  module = Based(width=16, heads=4, key_size=4)
  p = initial(module)
  p["v_proj"]["kernel"] = np.zeros((16, 16), np.float32)
  p["v_proj"]["kernel"][0] = np.arange(16)
  p["out_proj"]["kernel"] = np.eye(16, dtype=np.float32)
  x = jax.random.normal(jax.random.key(0), (1, 1500, 16)).at[..., 0].set(1)
  y = jax.jit(lambda x: module.apply({"params": p}, x))(x)
  np.testing.assert_allclose(y, np.broadcast_to(np.arange(16), y.shape), rtol=1e-5, atol=1e-5)


def test_a_model_with_windows_has_a_state_that_does_not_grow():
  """A stack of both kinds of layers in one call equals its steps, past the window."""
  near = dict(name="softmax", heads=2, window=4, position="rope")
  letters = {"b": dict(name="based", heads=2, key_size=4), "w": near}
  stack = build("stack", width=8, depth=2, pattern="bw", letters=letters)
  assert stack.STATE == "window"
  x = jax.random.normal(jax.random.key(0), (2, 11, 8))
  variables = jax.jit(stack.init)(jax.random.key(1), x)
  y, _ = stepped(stack, variables, x, stack.init_state(2, 1))
  np.testing.assert_allclose(y, jax.jit(stack.apply)(variables, x), atol=2e-5)
  sizes = [sum(leaf.size for leaf in jax.tree.leaves(stack.init_state(1, tokens))) for tokens in (10, 1000)]
  assert sizes[0] == sizes[1] == 2 * 15 * 5 + 4 * 2 * 8 + 2 * 4 + 2
