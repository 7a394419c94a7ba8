"""Layers that turn queries and keys give the same outputs however far from its document's start a window stands."""

import functools

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

RETNET = RetNet(D, heads=2)
FAR = [262_144, 16_777_216, 2**31 - T]


def later(state, tokens):
  """The state of a document of `tokens` tokens whose window holds none of them."""
  if hasattr(state, "attention"):
    return state._replace(attention=later(state.attention, tokens))
  return state._replace(consumed=state.consumed + tokens)


@functools.cache
def ready(module):
  """Its parameters, and the program for the outputs of X after a state and their gradient in X, for any dtype."""

  def run(params, state, x):
    def loss(x):
      y = module.apply(params, x, state, method="prefill")[0]
      return jnp.sum(jnp.sin(y)), y

    gradient, y = jax.grad(loss, has_aux=True)(x)
    return y, gradient

  return jax.jit(module.init)(jax.random.key(1), X), jax.jit(run)


@pytest.mark.parametrize("tokens", FAR)
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "mal")) for name in WINDOWS])
def test_an_empty_window_far_out_is_one_at_the_start(name, tokens):
  module = WINDOWS[name]
  state, (params, run) = module.init_state(B, T), ready(module)
  for got, want in zip(run(params, later(state, tokens), X), run(params, state, X)):
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("tokens", FAR)
def test_retnet_far_out_is_retnet_in_float64(tokens):
  params, run = ready(RETNET)
  state = RETNET.init_state(B, T)
  state = state._replace(length=state.length + tokens)
  got = run(params, state, X)
  with jax.enable_x64(True):
    wide = lambda z: z.astype(jnp.float64) if jnp.issubdtype(z.dtype, jnp.floating) else z
    want = run(*jax.tree.map(wide, (params, state, X)))
  for z, exact in zip(got, want):
    np.testing.assert_allclose(z, exact, atol=2e-5)
