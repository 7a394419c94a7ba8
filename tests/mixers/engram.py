"""Engram: small sizes, parameter count, oracle, refusals; which n-grams it reads, and what its gate does."""

import jax
import jax.numpy as jnp
import numpy as np

from hybrids.channel.engram import Engram
from tests.hybrids.filled import filled
from tests.refused import refused


def vectors(size):
  return {"ngrams": lambda b, t: np.random.default_rng(0).standard_normal((b, t, size))}


SMALL = {"": dict(streams=2, size=3, taps=3, dilation=2)}
ORACLE = {"": dict(streams=2, size=3, taps=3, dilation=2), "one stream": dict(streams=1, number=1, taps=2, dilation=1)}
SIDE = {"": vectors(3), "one stream": vectors(16)}
REFUSED = [
  (dict(streams=3), "Engram: streams=3 do not divide width=8, that of all together"),
  (dict(number=-1), "Engram: number=-1; layers are counted from 0"),
  (dict(size=0), "size=0; it must be at least 1"),
  (dict(dilation=0), "dilation=0; it must be at least 1"),
]
INITIAL = [(dict(width=8), {"conv/kernel": 0})]


def count(d, streams, size, taps, dilation):
  """Keys of all streams, one value; three norms; the convolution."""
  return size * d + size * d // streams + 3 * d + taps * d


def test_n_grams_that_do_not_suit_a_stream_are_weighed_less():
  """A stream along its key has a gate above 1/2, against it below; without n-grams nothing is added."""
  module = Engram(width=4, size=4, taps=1)
  x = jnp.array([[[1.0, 2, -1, 3]]])
  params = filled(module, x)["params"]
  params["conv"]["kernel"] = jnp.zeros((1, 4))
  params["k_proj"]["kernel"] = params["v_proj"]["kernel"] = jnp.eye(4)
  params["q_norm"]["scale"] = params["k_norm"]["scale"] = jnp.ones(4)
  y = lambda x, n: module.apply({"params": params}, x, side={"ngrams": n})
  # norm(x) . norm(x) / sqrt(4) is 2
  np.testing.assert_allclose(y(x, x), jax.nn.sigmoid(2**0.5) * x, rtol=1e-5)
  np.testing.assert_allclose(y(-x, x), jax.nn.sigmoid(-(2**0.5)) * x, rtol=1e-5)
  assert not np.any(module.apply({"params": params}, x))


def test_a_part_that_the_embedding_does_not_offer_is_refused():
  module, x = Engram(width=4, size=3, number=1), jnp.ones((1, 2, 4))
  said = "number=1 of size=3 is no part of the 5 entries that the embedding offers; give embed.sets and embed.size"
  refused(
    said, jax.eval_shape, lambda x, n: module.init(jax.random.key(0), x, side={"ngrams": n}), x, jnp.ones((1, 2, 5))
  )
