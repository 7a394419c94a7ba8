"""RWKV's channel mixing: initial values, published sizes, and that it is a letter of a pattern like any mixer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.channel.rwkv_channel import RWKVChannel
from hybrids.mixer import build
from tests.hybrids.filled import filled


def initial(**kwargs):
  module = RWKVChannel(**kwargs)
  variables = nn.unbox(jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1, module.width))))
  return jax.tree.map(np.asarray, variables["params"])


@pytest.mark.parametrize("version, power, inner", [(4, 2 / 3, 256), (6, 8 / 27, 224), (7, 16 / 81, 256)])
def test_initial_values(version, power, inner):
  p = initial(width=64, version=version, layer=1, depth=3)
  np.testing.assert_allclose(p["mu"], np.tile(1 - (np.arange(64) / 64) ** power, (1 + (version < 7), 1)), atol=1e-6)
  keys = p["k_proj"]["kernel"]
  assert keys.shape == (64, inner)
  if version == 7:
    np.testing.assert_allclose([keys.min(), keys.max()], [-1 / 16, 1 / 16], rtol=0.01)
  else:
    np.testing.assert_allclose(keys @ keys.T, {4: 4, 6: 1}[version] * np.eye(64), atol=1e-5)
  zero = ("v_proj",) if version == 7 else ("v_proj", "r_proj")
  assert p.keys() == {"mu", "k_proj", *zero}
  assert not any(p[name]["kernel"].any() for name in zero)


def test_a_model_is_time_mixing_and_channel_mixing_in_turn():
  """Both remember: one step at a time is the whole at once."""
  letters = {"r": dict(name="rwkv4"), "c": dict(name="rwkv_channel", version=4, inner=12)}
  stack = build("stack", width=8, depth=2, pattern="rc", letters=letters, branch=dict(norm=dict(name="layer")))
  assert stack.STATE == "fixed"
  x = jax.random.normal(jax.random.key(0), (2, 7, 8))
  variables = filled(stack, x)

  @jax.jit
  def steps(x):
    def one(state, token):
      y, state = stack.apply(variables, token, state, method="step")
      return state, y

    return jax.lax.scan(one, stack.init_state(2, 1), x.swapaxes(0, 1))[1].swapaxes(0, 1)

  np.testing.assert_allclose(steps(x), jax.jit(stack.apply)(variables, x), atol=2e-5)


@pytest.mark.parametrize(
  "kwargs, reason",
  [
    (dict(version=5), "version=5; choose from \\[4, 6, 7\\]"),
    (dict(inner=0), "inner=0; it must be at least 1"),
  ],
)
def test_what_does_not_fit_is_named_when_the_model_is_built(kwargs, reason):
  with pytest.raises(ValueError, match=reason):
    RWKVChannel(width=8, **kwargs)
