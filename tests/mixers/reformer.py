"""Reformer's initial values, its hashes and its limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.efficient.reformer import Reformer
from tests.initial import initial, normal, shaped, uniform

# one head: with two, a number rounded to bfloat16 falls into another bucket
SMALL = {"": dict(heads=1, buckets=2, rounds=2, chunk=3)}
ORACLE = {"": dict(heads=2, buckets=4, rounds=2, chunk=3), "one round": dict(heads=4, buckets=2, chunk=4, bias=True)}
REFUSED = [
  (dict(heads=3), "heads=3 does not divide width=8"),
  (dict(buckets=3), "buckets=3; R q and -R q"),
  (dict(rounds=0), "rounds=0; it must be at least 1"),
  (dict(chunk=0), "chunk=0; it must be at least 1"),
]
INITIAL = [(dict(width=64), {"R": shaped(8, 8, 1, 5), "R ": normal(1, 0.2), "q_proj": uniform((6 / 128) ** 0.5)})]


def count(d, **_):
  """Queries, values and out."""
  return 3 * d * d


X = jax.random.normal(jax.random.key(1), (2, 12, 8))


def ready(**kwargs):
  module = Reformer(width=8, heads=2, **kwargs)
  return module, jax.jit(module.init)(jax.random.key(0), X)


@pytest.mark.parametrize("kwargs", [dict(chunk=12), dict(chunk=100), dict(chunk=6), dict(chunk=7, rounds=3)])
def test_chunks_that_hold_all_tokens_are_exact_attention(kwargs):
  """To all tokens but oneself, keys being unit queries: in one chunk, or in two that see each other."""
  module, variables = ready(**kwargs)
  p = jax.tree.map(np.asarray, initial(module))
  by_head = lambda name: (np.asarray(X) @ p[name]["kernel"]).reshape(2, 12, 2, 4)
  q, v = by_head("q_proj"), by_head("v_proj")
  scores = np.einsum("bthk,bshk->bhts", q, q / np.linalg.norm(q, axis=-1, keepdims=True))
  weights = np.exp(scores) * (1 - np.eye(12))
  y = np.einsum("bhts,bshk->bthk", weights / weights.sum(axis=-1, keepdims=True), v).reshape(2, 12, 8)
  np.testing.assert_allclose(jax.jit(module.apply)(variables, X), y @ p["out_proj"]["kernel"], atol=1e-5)


def test_a_token_alone_sees_itself():
  module, variables = ready(chunk=4)
  p = jax.tree.map(np.asarray, initial(module))
  y = jax.jit(module.apply)(variables, X[:, :1])
  np.testing.assert_allclose(y, np.asarray(X[:, :1]) @ p["v_proj"]["kernel"] @ p["out_proj"]["kernel"], atol=1e-5)


def test_tokens_find_those_of_their_hash():
  """Four kinds of tokens, shuffled, in chunks as long as a kind is: each sees its own and the one before."""
  kinds = np.random.default_rng(0).permutation(np.repeat(np.arange(4), 3))
  module = Reformer(width=8, heads=1, buckets=8, chunk=3)
  p = jax.tree.map(np.asarray, initial(module)) | {"q_proj": {"kernel": np.eye(8, dtype=np.float32)}}
  R = np.eye(8, dtype=np.float32)[None, :, None, :4]
  x = jnp.asarray(np.eye(8, dtype=np.float32)[kinds])[None]
  run = lambda x: module.apply({"params": p, "buffers": {"R": R}}, x)[0].sum(axis=-1)
  sees = np.abs(np.asarray(jax.jit(jax.jacobian(run))(x))[:, 0]).max(axis=-1) > 0
  allowed = ((kinds[:, None] - kinds) % 4 <= 1) & ~np.eye(12, dtype=bool)
  # a token's own entry is there for its query
  np.testing.assert_array_equal(sees & ~np.eye(12, dtype=bool), allowed)
