"""Based's weights, its sizes, and the model in which attention in a window stands beside it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.recurrent.based import Based, taylor
from hybrids.mixer import build
from tests.attention.initial import initial


def test_weights_are_the_taylor_polynomial_of_the_exponential():
  """And at least 1/2, whatever queries and keys are."""
  rng = np.random.default_rng(0)
  q, k = 3 * rng.standard_normal((2, 1000, 5)).astype(np.float32)
  z = np.sum(q * k, axis=-1) / 5**0.5
  weights = np.asarray(jax.jit(lambda q, k: jnp.sum(taylor(q) * taylor(k), axis=-1))(q, k))
  np.testing.assert_allclose(weights, 1 + z + z**2 / 2, atol=2e-6 * (z**2).max())
  assert 0.5 <= weights.min() < 0.51
  near = abs(z) < 0.1
  np.testing.assert_allclose(weights[near], np.exp(z[near]), rtol=2e-4)


def test_a_token_is_a_mean_of_what_it_sees():
  """Weights sum to 1: with the same value everywhere that value comes out, however long the document."""
  module = Based(width=16, heads=4, key_size=4)
  p = initial(module)
  p["v_proj"]["kernel"] = np.zeros((16, 16), np.float32)
  p["v_proj"]["kernel"][0] = np.arange(16)
  p["out_proj"]["kernel"] = np.eye(16, dtype=np.float32)
  x = jax.random.normal(jax.random.key(0), (1, 1500, 16)).at[..., 0].set(1)
  y = jax.jit(lambda x: module.apply({"params": p}, x))(x)
  np.testing.assert_allclose(y, np.broadcast_to(np.arange(16), y.shape), rtol=1e-5, atol=1e-5)


def test_initial_values():
  p = initial(Based(width=256, depth=4))
  for name, shape, bound in (
    ("q_proj", (256, 256), 1 / 16),
    ("v_proj", (256, 256), 1 / 16),
    ("out_proj", (256, 256), 1 / 32),
  ):
    assert p[name]["kernel"].shape == shape
    np.testing.assert_allclose(np.abs(p[name]["kernel"]).max(), bound, rtol=0.01)


def test_its_published_sizes_come_with_the_width():
  """Sixteen heads of 16 keys; 273 features, without those that are there twice; a divisor beside each head's values."""
  assert Based(width=1024).init_state(1, 1).S.shape == (1, 16, 273 - 16 * 15 // 2, 64 + 1)


def test_the_model_has_windows_beside_it_and_a_state_that_does_not_grow():
  """A stack of both, in one piece and token by token past the window."""
  near = dict(name="softmax", heads=2, window=4, position="rope")
  letters = {"b": dict(name="based", heads=2, key_size=4), "w": near}
  stack = build("stack", width=8, depth=2, pattern="bw", letters=letters)
  assert stack.STATE == "window"
  x = jax.random.normal(jax.random.key(0), (2, 11, 8))
  variables = jax.jit(stack.init)(jax.random.key(1), x)

  @jax.jit
  def steps(x):
    def one(state, token):
      y, state = stack.apply(variables, token, state, method="step")
      return state, y

    return jax.lax.scan(one, stack.init_state(2, 1), x.swapaxes(0, 1))[1].swapaxes(0, 1)

  np.testing.assert_allclose(steps(x), jax.jit(stack.apply)(variables, x), atol=2e-5)
  sizes = [sum(leaf.size for leaf in jax.tree.leaves(stack.init_state(1, tokens))) for tokens in (10, 1000)]
  assert sizes[0] == sizes[1] == 2 * 15 * 5 + 4 * 2 * 8 + 2 * 4 + 2


@pytest.mark.parametrize(
  "kwargs, reason",
  [
    (dict(heads=3), "heads=3 does not divide width=8"),
    (dict(key_size=0), "key_size=0; it must be at least 1"),
    (dict(depth=0), "depth=0; it must be at least 1"),
  ],
)
def test_what_does_not_fit_is_named_when_the_model_is_built(kwargs, reason):
  with pytest.raises(ValueError, match=reason):
    Based(width=8, **kwargs)
