"""Latent attention to chosen pools: sizes, oracle, refusals; few tokens are all seen; choosing has no gradient."""

import functools

import jax

from attention.indexed_mla import IndexedMLA
from attention.mla import MLA
from tests.initial import variables
from tests.mixers import _indexed

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


def is_index(name):
  """Tells the indexer's parameters."""
  return name == "P" or name.startswith("index")


@functools.cache
def ready():
  module = IndexedMLA(width=8, **SIZES, **INDEX)
  return module, variables(module, X)


def test_as_many_tokens_as_are_chosen_are_all_seen():
  _indexed.check_all_are_seen(*ready(), MLA(width=8, **SIZES), X, is_index)


def test_the_indexer_has_no_gradient():
  _indexed.check_no_gradient(*ready(), X, is_index)
