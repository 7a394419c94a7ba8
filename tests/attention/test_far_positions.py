"""Layers that turn queries and keys give the same outputs however far from its document's start a window stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.local import LocalAttention
from attention.recurrent.retnet import RetNet
from attention.recurrent.titans_mal import TitansMAL
from attention.softmax import Attention

B, T, D = 2, 12, 16
X = jax.random.normal(jax.random.key(0), (B, T, D))
WINDOWS = {
  "rope": Attention(D, heads=2, window=8, position="rope"),
  "xpos": Attention(D, heads=2, window=8, position="xpos"),
  "yarn": Attention(D, heads=2, window=8, position="rope", scaling=dict(rule="yarn", factor=4.0, trained=64)),
  "local": LocalAttention(D, heads=2, window=8),
  "mal": TitansMAL(D, heads=2, window=8, persistent=0),
}


def later(state, tokens):
  """The state of a document of `tokens` tokens whose window holds none of them."""
  if hasattr(state, "attention"):
    return state._replace(attention=later(state.attention, tokens))
  return state._replace(consumed=state.consumed + tokens)


def values_and_gradient(module, params, state, x):
  loss = lambda x: jnp.sum(jnp.sin(module.apply(params, x, state, method="prefill")[0]))
  return module.apply(params, x, state, method="prefill")[0], jax.grad(loss)(x)


@pytest.mark.parametrize("tokens", [262_144, 16_777_216, 2**31 - T])
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "mal")) for name in WINDOWS])
def test_an_empty_window_far_out_is_one_at_the_start(name, tokens):
  module = WINDOWS[name]
  state, params = module.init_state(B, T), module.init(jax.random.key(1), X)
  run = jax.jit(lambda state: values_and_gradient(module, params, state, X))
  for got, want in zip(run(later(state, tokens)), run(state)):
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("tokens", [262_144, 16_777_216, 2**31 - T])
def test_retnet_far_out_is_retnet_in_float64(tokens):
  module = RetNet(D, heads=2)
  params = module.init(jax.random.key(1), X)

  def run(dtype):
    cast = lambda z: z.astype(dtype) if jnp.issubdtype(z.dtype, jnp.floating) else z
    state = module.init_state(B, T)
    state = state._replace(length=state.length + tokens)
    given = jax.tree.map(cast, (params, state, X))
    return jax.jit(lambda params, state, x: values_and_gradient(module, params, state, x))(*given)

  got = run(jnp.float32)
  with jax.enable_x64(True):
    want = run(jnp.float64)
  for z, exact in zip(got, want):
    np.testing.assert_allclose(z, exact, atol=2e-5)
