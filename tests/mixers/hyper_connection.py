"""HyperConnection: small sizes, parameter count, oracle, refusals; the weights' sums, and a stack of such layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.body.hyper_stack import HyperStack
from hybrids.wrap.hyper_connection import HyperConnection
from tests import mixers
from tests.hybrids.filled import filled

MLP = dict(name="mlp", inner=3, activation="silu")
SMALL = {"": dict(streams=2, iterations=2, mixer=dict(name="min_gru"))}
ORACLE = {"": dict(streams=2, iterations=3, mixer=MLP), "four": dict(streams=4, iterations=1, mixer=MLP)}
REFUSED = [
  (dict(mixer=MLP, streams=3), "streams=3 do not divide width=8"),
  (dict(mixer=MLP, iterations=0), "iterations=0; it must be at least 1"),
  (dict(mixer=MLP, eps=0.0), "eps=0.0; it must be above 0"),
  (dict(mixer=dict(name="mpl")), "no mixer is called 'mpl'"),
]


def count(d, mixer, streams, **_):
  """The mixer of one stream and its norm; three sets of weights, their biases and three scales."""
  one, weights = d // streams, streams * (streams + 2)
  return mixers.count(width=one, **mixer) + one + (d + 1) * weights + 3


def test_the_sums_of_columns_and_rows_are_one():
  module = HyperConnection(width=8, mixer=MLP, streams=4)
  M = jnp.exp(2 * jax.random.normal(jax.random.key(0), (5, 4, 4)))
  M = jax.jit(module._balanced)(M)
  np.testing.assert_allclose(M.sum(-2), 1, atol=1e-4)
  np.testing.assert_allclose(M.sum(-1), 1, atol=0.05)


def hyper_stack(**fields):
  letters = {"g": dict(name="min_gru"), "-": dict(mixer=MLP, norm=dict(name="layer"))}
  return HyperStack(width=4, streams=2, iterations=2, stack=dict(depth=4, pattern="g-", letters=letters | fields))


def test_a_stack_of_them_passes_on_streams_and_returns_their_mean():
  """As by hand, in loops and with layers apart; steps go on where the prompt ends."""
  stack = hyper_stack()
  x = jax.random.normal(jax.random.key(0), (2, 6, 4))
  kept = filled(stack, x)

  @jax.jit
  def by_hand(x):
    own, streams = stack.apart(kept)["params"], jnp.tile(x, 2)
    for i in map(str, range(2)):
      for letter, mixer, norm in (("g", dict(name="min_gru"), "rms"), ("-", MLP, "layer")):
        layer = HyperConnection(width=8, mixer=mixer, norm=dict(name=norm), streams=2, iterations=2)
        streams = layer.apply({"params": own["layers"][letter][i]["mixer"]}, streams)
    mean = (streams[..., :4] + streams[..., 4:]) / 2
    return own["final_norm"]["scale"] * mean * jax.lax.rsqrt(jnp.mean(mean**2, axis=-1, keepdims=True) + 1e-5)

  y = jax.jit(stack.apply)(kept, x)
  np.testing.assert_allclose(y, by_hand(x), rtol=1e-4, atol=1e-5)
  jax.tree.map(np.testing.assert_array_equal, stack.together(stack.apart(kept)), kept)

  @jax.jit
  def resumed(x):
    _, state = stack.apply(kept, x[:, :5], stack.init_state(2, 6), method="prefill")
    return stack.apply(stack.apart(kept), x[:, 5], state, method="step")[0]

  np.testing.assert_allclose(resumed(x), y[:, 5], rtol=1e-4, atol=1e-5)


def test_a_letter_has_a_mixer_and_a_norm_alone():
  with pytest.raises(ValueError, match=r"HyperStack: letter 'g' has \['scale'\]; a layer .* \['mixer', 'norm'\] alone"):
    hyper_stack(g=dict(mixer=MLP, scale=0.5))
