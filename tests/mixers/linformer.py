"""Linformer's initial values and its limit."""

import jax
import jax.numpy as jnp
import numpy as np

from attention.efficient.linformer import Linformer, mix
from tests.attention.exact import exact
from tests.initial import initial, uniform

SMALL = {"": dict(heads=2, rank=3), "two mixtures": dict(heads=2, rank=3, shared=False, bias=True)}
ORACLE = {
  "": dict(heads=2, rank=3, max_len=20),
  "two mixtures": dict(heads=1, rank=5, max_len=14, shared=False, bias=True),
}
REFUSED = [
  (dict(heads=3), "heads=3 does not divide width=8"),
  (dict(rank=0), "rank=0; it must be at least 1"),
  (dict(max_len=0), "max_len=0; it must be at least 1"),
]
# Uniform as Glorot has it.
INITIAL = [
  (dict(width=64, rank=100, max_len=200), {"E": uniform((6 / 300) ** 0.5), "qkv/q_proj": uniform((6 / 128) ** 0.5)})
]


def count(d, rank, shared=True, bias=False, **_):
  """Queries, keys, values and out; E, and perhaps F."""
  return 4 * d * (d + bias) + (2 - shared) * 4096 * rank


X = jax.random.normal(jax.random.key(1), (2, 12, 8))


def test_keys_and_values_may_have_mixtures_of_their_own():
  two = initial(Linformer(width=8, max_len=20, shared=False))
  assert np.abs(two["E"] - two["F"]).max() > 0.1


def test_mixtures_of_one_token_each_are_exact_attention():
  module = Linformer(width=8, heads=2, rank=12, max_len=12)
  p = initial(module) | {"E": np.eye(12, dtype=np.float32)}
  np.testing.assert_allclose(jax.jit(module.apply)({"params": p}, X), exact(p, X, heads=2), atol=1e-5)


def test_mixtures_in_bfloat16_are_sums_in_float32():
  """Read from the program, since a CPU adds up in float32 whatever it is told."""
  W, z = jnp.ones((601, 2), jnp.bfloat16), jnp.ones((1, 600, 1, 3), jnp.bfloat16)
  (sums,) = (eqn for eqn in jax.make_jaxpr(mix)(W, z).eqns if eqn.primitive.name == "dot_general")
  assert sums.params["preferred_element_type"] == jnp.float32
  assert mix(W, z).dtype == jnp.bfloat16
