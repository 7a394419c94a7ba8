"""Mega: small sizes, parameter count, oracle, refusals; its chunks, its place in a block, and initial values."""

import jax
import jax.numpy as jnp
import numpy as np

from hybrids.branch import Branch
from ssm.lti import chunks
from ssm.lti.mega import Mega
from tests.hybrids.filled import filled
from tests.initial import initial, normal

SMALL = {
  "": dict(state=2, keys=4, chunk=5),
  "both ways": dict(state=2, keys=3, chunk=4, position="simple", bidirectional=True),
  "laplace": dict(state=2, keys=4, chunk=5, weights="laplace"),
  "no chunks": dict(state=2, keys=4, inner=6, chunk=None),
  "simple": dict(state=2, keys=3, chunk=4, position="simple"),
}
ORACLE = {
  "": dict(state=2, keys=4, chunk=5),
  "no chunks": (dict(state=1, keys=4, chunk=None), dict(chunk=100)),
  "simple": dict(state=3, keys=3, inner=6, chunk=4, position="simple"),
  "both ways": dict(state=2, keys=4, chunk=5, bidirectional=True),
  "both ways, laplace": dict(state=2, keys=3, chunk=4, position="simple", weights="laplace", bidirectional=True),
  "relu2": (dict(state=2, keys=4, chunk=None, weights="relu2"), dict(chunk=100)),
}
RESUMED = ("", "simple")
REFUSED = [
  (dict(chunk=0), "chunk=0; it must be at least 1"),
  (dict(state=0), "state=0; it must be at least 1"),
  (dict(position="alibi"), "position='alibi'; choose from ['rotary', 'simple']"),
  (dict(weights="sigmoid"), "weights='sigmoid'; choose from ['softmax', 'relu2', 'laplace']"),
  (dict(keys=5), "keys=5 is odd; position='rotary' turns pairs"),
  (dict(chunk=None, position="simple"), "position='simple' has a number for each distance within a chunk; set chunk"),
]
TRAINED = {"slow": {"alpha", "delta"}, "undecayed": {"bias", "qk_scale", "qk_shift"}}
INITIAL = [
  (
    dict(width=64, state=8, keys=32),
    {
      "alpha delta": normal(0.2, 0.1),
      "gamma": normal(1, 0.1),
      "v_proj m_proj h_proj": normal(0.02),
      "qk_scale bias": normal(0.02, 0.4),
      "v_proj/bias m_proj/bias h_proj/bias qk_shift": 0,
    },
  )
]
T, D = 12, 4
X = jax.random.normal(jax.random.key(1), (1, T, D))


def count(d, state, keys, chunk, inner=None, position="rotary", bidirectional=False, **_):
  """The averages; u, c, z and r; values; out; scales, shifts and positions of queries and keys."""
  e, ways = inner or 2 * d, 1 + bidirectional
  biased = (d + 1) * (2 * d + keys + e) + (d + 1) * e + (e + 1) * d
  distances = ways * chunk - bidirectional if chunk else 0
  return ways * 4 * d * state + d + biased + 4 * keys + (2 * keys if position == "rotary" else distances)


def test_chunks_have_as_many_tokens_as_there_are():
  """Nine tokens in chunks of four, a new document at the sixth; a row of seven."""
  at, _ = chunks.places(
    jnp.zeros(2, jnp.int32), 9, 4, reset=jnp.zeros((2, 9), bool).at[:, 5].set(True), lengths=jnp.array([9, 7])
  )
  np.testing.assert_array_equal(chunks.sizes(at)[0], [4, 4, 4, 4, 1, 4, 4, 4, 4])
  np.testing.assert_array_equal(chunks.sizes(at)[1, :7], [4, 4, 4, 4, 1, 2, 2])


def test_a_block_with_a_norm_after_it_is_the_papers_layer():
  """norm(x + u (c - x)): where u is 1, the input is gone."""
  module = Branch(width=D, mixer=dict(name="mega", state=2, keys=4), norm_position="post")
  variables = filled(module, X)
  mixer = variables["params"]["mixer"]
  bias = mixer["m_proj"]["bias"].at[:D].set(40.0)
  kernel = mixer["m_proj"]["kernel"].at[:, -D:].set(0.0)
  no_output = jax.tree.map(jnp.zeros_like, mixer["h_proj"])
  open_gate = mixer | {"m_proj": {"kernel": kernel, "bias": bias}, "h_proj": no_output}
  y = jax.jit(module.apply)({"params": {**variables["params"], "mixer": open_gate}}, X)
  c = jax.nn.silu(bias[-D:])
  expected = variables["params"]["norm"]["scale"] * c / jnp.sqrt(jnp.mean(c**2) + 1e-5)
  np.testing.assert_allclose(y, jnp.broadcast_to(expected, y.shape), rtol=1e-4, atol=1e-5)


def test_input_weights_start_at_one_and_minus_one_by_turns():
  beta = initial(Mega(width=64, state=8, keys=32))["beta"]
  np.testing.assert_allclose(np.mean(beta, axis=0), [1, -1] * 4, atol=0.02)
  np.testing.assert_allclose(np.std(beta - np.array([1, -1] * 4)), 0.02, rtol=0.1)
