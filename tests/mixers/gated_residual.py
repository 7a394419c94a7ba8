"""GatedResidual: small sizes, parameter count, oracle, refusals; and a stack of such layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.body.gated_stack import GatedStack
from hybrids.channel.engram import Engram
from hybrids.wrap.gated_residual import GatedResidual, Gather
from tests import mixers
from tests.hybrids.filled import filled

MLP = dict(name="mlp", inner=3, activation="silu")
SMALL = {"": dict(streams=2, rank=3, mixer=dict(name="min_gru"))}
ORACLE = {"": dict(streams=2, rank=3, mixer=MLP), "four": dict(streams=4, mixer=MLP)}
REFUSED = [
  (dict(mixer=MLP, streams=3), "GatedResidual: streams=3 do not divide width=8"),
  (dict(mixer=MLP, rank=0), "rank=0; it must be at least 1"),
  (dict(mixer=dict(name="mpl")), "no mixer is called 'mpl'"),
]


def count(d, mixer, streams, rank):
  """The mixer of one stream; the norm, weights of low rank that read and those that write."""
  return mixers.count(width=d // streams, **mixer) + d + 2 * rank * d + streams * d


def gated_stack(**fields):
  letters = {"n": dict(name="engram", streams=2, size=3), "g": dict(name="min_gru"), "-": MLP}
  stack = dict(depth=5, pattern="ng-g-", letters=letters)
  return GatedStack(width=4, streams=2, rank=3, stack=stack, **{"whole": "n", **fields})


def test_a_stack_of_them_passes_on_streams_and_gathers_them_at_the_end():
  """As by hand, in loops and with layers apart; steps go on where the prompt ends."""
  stack = gated_stack()
  x, n = jax.random.normal(jax.random.key(0), (2, 6, 4)), jax.random.normal(jax.random.key(1), (2, 6, 3))
  kept = filled(stack, x)

  @jax.jit
  def by_hand(x, n):
    own, streams = stack.apart(kept)["params"], jnp.tile(x, 2)
    params = lambda letter, number: {"params": own["layers"][letter][str(number)]["mixer"]}
    streams += Engram(width=8, streams=2, size=3).apply(params("n", 0), streams, side={"ngrams": n})
    for i in range(2):
      for letter, mixer in (("g", dict(name="min_gru")), ("-", MLP)):
        streams = GatedResidual(width=8, mixer=mixer, streams=2, rank=3).apply(params(letter, i), streams)
    return Gather(8, 2, 3).apply({"params": own["last"]}, streams)[0]

  y = jax.jit(stack.apply)(kept, x, side={"ngrams": n})
  np.testing.assert_allclose(y, by_hand(x, n), rtol=1e-4, atol=1e-5)
  assert np.abs(y - jax.jit(stack.apply)(kept, x)).max() > 1e-2, "n-grams change nothing"

  @jax.jit
  def resumed(x, n):
    state = stack.init_state(2, 6)
    _, state = stack.apply(kept, x[:, :5], state, side={"ngrams": n[:, :5]}, method="prefill")
    return stack.apply(stack.apart(kept), x[:, 5], state, side={"ngrams": n[:, 5]}, method="step")[0]

  np.testing.assert_allclose(resumed(x, n), y[:, 5], rtol=1e-4, atol=1e-5)


def test_letters_of_all_streams_are_those_of_the_stack():
  with pytest.raises(ValueError, match=r"whole='q' names \['q'\]; the letters are \['-', 'g', 'n'\]"):
    gated_stack(whole="q")
