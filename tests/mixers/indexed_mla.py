"""Latent attention to chosen pools: sizes, oracle, refusals; few tokens are all seen; choosing has no gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from attention.indexed_mla import IndexedMLA
from attention.mla import MLA
from tests.initial import variables

SIZES = dict(heads=2, rank=5, q_rank=6, head_size=3, rope_size=0, value_size=4, position="none")
INDEX = dict(index_heads=3, index_size=4, pool=2, chosen=4)
# the contract holds of all tokens; what is chosen of more of them is compared with the oracle, documents and pieces too
SMALL = {"": SIZES | INDEX | dict(rope_size=2, chosen=64)}
ORACLE = {"": SIZES | INDEX, "a shared key": SIZES | INDEX | dict(rope_size=2)}
RESUMED = ("",)
REFUSED = [
  (SIZES | INDEX | dict(chosen=5), "IndexedMLA: chosen=5 is no multiple of pool=2"),
  (SIZES | INDEX | dict(q_rank=None), "IndexedMLA: q_rank=None; the indexer reads compressed queries"),
  (SIZES | INDEX | dict(pool=0), "IndexedMLA: pool=0; it must be at least 1"),
  (SIZES | INDEX | dict(rope_size=-1), "MLA: rope_size=-1; it must be at least 1, or 0 with position='none'"),
]
TRAINED = {"undecayed": {"P"}}


def count(d, heads, rank, q_rank, head_size, rope_size, value_size, index_heads, index_size, pool, **_):
  """Adds up latent attention; the indexer's queries, key and norm, weights, gate, places."""
  latent = d * q_rank + q_rank + q_rank * heads * (head_size + rope_size) + (d + 1) * rank + d * rope_size
  latent += rank * heads * (head_size + value_size)
  latent += heads * value_size * d
  indexer = q_rank * index_heads * index_size + 2 * d * index_size + 2 * index_size + d * index_heads
  return latent + indexer + pool * index_size


X = jax.random.normal(jax.random.key(1), (2, 12, 8))


@functools.cache
def ready(**fields):
  module = IndexedMLA(width=8, **(SIZES | INDEX | fields))
  return module, variables(module, X)


def test_as_many_tokens_as_are_chosen_are_all_seen():
  """And one more token than that is not, where it was not chosen."""
  module, kept = ready()
  own = {name: leaf for name, leaf in kept["params"].items() if name != "P" and not name.startswith("index")}
  all_seen = jax.jit(MLA(width=8, **SIZES).apply)({"params": own}, X)
  y = jax.jit(module.apply)(kept, X)
  few = jax.jit(module.apply)(kept, X[:, :4])
  np.testing.assert_allclose(few, all_seen[:, :4], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(y[:, :5], all_seen[:, :5], rtol=1e-5, atol=1e-6)
  assert np.abs(y - all_seen)[:, 7:].max() > 1e-3


def test_the_indexer_has_no_gradient():
  module, kept = ready()
  gradient = jax.jit(jax.grad(lambda kept: jnp.sum(module.apply(kept, X) ** 2)))(kept)["params"]
  for name, leaves in gradient.items():
    zero = all(not np.any(leaf) for leaf in jax.tree.leaves(leaves))
    assert zero == (name == "P" or name.startswith("index")), name
