"""Mega's chunks, its initial values, and its names and sizes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.branch import Branch
from ssm.lti import chunks
from ssm.lti.mega import Mega
from tests.hybrids.filled import filled

T, D = 12, 4
X = jax.random.normal(jax.random.key(1), (1, T, D))


def reaches(module, reset=None):
  """Which earlier tokens reach which, with an average that forgets everything."""
  variables = filled(module, X)
  full = jax.tree.map(
    lambda z: jnp.full_like(z, 40.0), {name: variables["params"][name] for name in ("alpha", "delta")}
  )
  params = {**variables["params"], **full}
  run = lambda x: module.apply({"params": params}, x, reset=reset)
  return np.abs(jax.jit(jax.jacobian(run))(X)).max(axis=(0, 2, 3, 5)) > 1e-7


def test_chunks_count_from_the_documents_start():
  reset = np.isin(np.arange(T), [2, 9])[None]
  chunk = np.array([0, 0, 1, 1, 1, 2, 2, 2, 3, 4, 4, 4])
  expected = np.tri(T, dtype=bool) & (chunk[:, None] == chunk)
  np.testing.assert_array_equal(reaches(Mega(width=D, state=2, keys=4, chunk=3), jnp.asarray(reset)), expected)


def test_both_ways_tokens_see_all_of_their_chunk():
  reset = np.isin(np.arange(T), [2, 9])[None]
  chunk = np.array([0, 0, 1, 1, 1, 2, 2, 2, 3, 4, 4, 4])
  module = Mega(width=D, state=2, keys=4, chunk=3, bidirectional=True)
  np.testing.assert_array_equal(reaches(module, jnp.asarray(reset)), chunk[:, None] == chunk)


@pytest.mark.slow
def test_both_averages_carry_what_lies_outside_of_the_chunk():
  module = Mega(width=D, state=2, keys=4, chunk=3, bidirectional=True)
  grad = jax.grad(lambda x: module.apply(filled(module, X), x)[0, 5].sum())(X)
  assert np.abs(grad[0, [0, -1]]).max(axis=1).min() > 1e-7


def test_both_ways_has_no_state():
  module = Mega(width=D, bidirectional=True)
  assert module.STATE == "none"
  with pytest.raises(ValueError, match="Mega: bidirectional=True sees later tokens, so it has no state"):
    module.init_state(1, 4)


def test_chunks_have_as_many_tokens_as_there_are():
  """Nine tokens in chunks of four, a new document at the sixth; a row of seven."""
  at, _ = chunks.places(
    jnp.zeros(2, jnp.int32), 9, 4, reset=jnp.zeros((2, 9), bool).at[:, 5].set(True), lengths=jnp.array([9, 7])
  )
  np.testing.assert_array_equal(chunks.sizes(at)[0], [4, 4, 4, 4, 1, 4, 4, 4, 4])
  np.testing.assert_array_equal(chunks.sizes(at)[1, :7], [4, 4, 4, 4, 1, 2, 2])


def test_without_chunks_all_of_the_document_is_seen():
  np.testing.assert_array_equal(reaches(Mega(width=D, state=2, keys=4, chunk=None)), np.tri(T, dtype=bool))


@pytest.mark.slow
def test_the_average_carries_what_lies_before_the_chunk():
  module = Mega(width=D, state=2, keys=4, chunk=3)
  grad = jax.grad(lambda x: module.apply(filled(module, X), x)[0, -1].sum())(X)
  assert np.abs(grad[0, 0]).max() > 1e-7


def test_after_a_norm_behind_it_a_block_is_the_papers_layer():
  """norm(x + u (c - x)): where u is 1, the input is gone."""
  module = Branch(width=D, mixer=dict(name="mega", state=2, keys=4), norm_position="post")
  variables = filled(module, X)
  mixer = variables["params"]["mixer"]
  bias = mixer["m_proj"]["bias"].at[:D].set(40.0)
  open_gate = {
    **mixer,
    "m_proj": {**mixer["m_proj"], "bias": bias},
    "h_proj": jax.tree.map(jnp.zeros_like, mixer["h_proj"]),
  }
  kernel = mixer["m_proj"]["kernel"].at[:, -D:].set(0.0)
  open_gate["m_proj"] = {"kernel": kernel, "bias": bias}
  y = jax.jit(module.apply)({"params": {**variables["params"], "mixer": open_gate}}, X)
  c = jax.nn.silu(bias[-D:])
  expected = variables["params"]["norm"]["scale"] * c / jnp.sqrt(jnp.mean(c**2) + 1e-5)
  np.testing.assert_allclose(y, jnp.broadcast_to(expected, y.shape), rtol=1e-4, atol=1e-5)


def test_initial_values():
  module = Mega(width=64, state=8, keys=32)
  p = nn.unbox(jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1, 64))))["params"]
  np.testing.assert_allclose([np.std(p[name]) for name in ("alpha", "delta", "gamma")], [0.2, 0.2, 1], rtol=0.1)
  np.testing.assert_allclose(np.mean(p["beta"], axis=0), [1, -1] * 4, atol=0.02)
  np.testing.assert_allclose(np.std(p["beta"] - np.array([1, -1] * 4)), 0.02, rtol=0.1)
  for name in ("v_proj", "m_proj", "h_proj"):
    np.testing.assert_allclose(np.std(p[name]["kernel"]), 0.02, rtol=0.05)
    assert not p[name]["bias"].any()
  np.testing.assert_allclose([np.std(p["qk_scale"]), np.std(p["bias"])], [0.02, 0.02], rtol=0.4)
  assert not p["qk_shift"].any()


@pytest.mark.parametrize(
  "kwargs, reason",
  [
    (dict(chunk=0), "chunk=0; it must be at least 1"),
    (dict(state=0), "state=0; it must be at least 1"),
    (dict(position="alibi"), r"position='alibi'; choose from \['rotary', 'simple'\]"),
    (dict(weights="sigmoid"), r"weights='sigmoid'; choose from \['softmax', 'relu2', 'laplace'\]"),
    (dict(keys=5), "keys=5 is odd; position='rotary' turns pairs"),
    (dict(chunk=None, position="simple"), "position='simple' has a number for each distance within a chunk; set chunk"),
  ],
)
def test_what_does_not_fit_is_named_when_the_model_is_built(kwargs, reason):
  with pytest.raises(ValueError, match=reason):
    Mega(width=8, **kwargs)
