"""Attention to chosen blocks: sizes, oracle, refusals; few tokens are all seen; choosing has no gradient."""

import functools

import jax

from attention.indexed_softmax import IndexedSoftmax
from attention.softmax import Attention
from tests.initial import variables
from tests.mixers import _indexed

SIZES = dict(heads=2, kv_heads=1, head_size=4, gate="entry", qk_norm="head", position="rope", theta=50.0)
INDEX = dict(index_heads=3, index_size=6, pool=2, chosen=4)
# the contract holds of all tokens; what is chosen of more of them is compared with the oracle, documents and pieces too
SMALL = {"": SIZES | INDEX | dict(chosen=64)}
ORACLE = {
  "": (SIZES | INDEX, dict(entries=4)),
  "half turned": (SIZES | INDEX | dict(kv_heads=2, rotary=0.5, index_size=5, pool=3, chosen=6), dict(entries=2)),
  "unturned": SIZES | INDEX | dict(position="none", chosen=2),
}
RESUMED = ("", "half turned")
REFUSED = [
  (SIZES | INDEX | dict(chosen=5), "IndexedSoftmax: chosen=5 is no multiple of pool=2"),
  (SIZES | INDEX | dict(pool=0), "pool=0; it must be at least 1"),
  (SIZES | INDEX | dict(index_size=2), "index_size=2 is less than the 4 entries that turn"),
  (SIZES | INDEX | dict(window=3), "IndexedSoftmax: window=3; where tokens are chosen, it is None"),
  (SIZES | INDEX | dict(mask="full"), "mask='full'; where tokens are chosen, it is 'causal'"),
  (SIZES | INDEX | dict(position="alibi"), "position='alibi'; choose 'rope' or 'none'"),
]


def count(d, heads, kv_heads, head_size, index_heads, index_size, **_):
  """Queries, gates and outputs, keys and values, norms of both; the indexer's queries, keys and norms."""
  attention = 3 * d * heads * head_size + 2 * d * kv_heads * head_size + 2 * head_size
  return attention + d * (index_heads + 1) * index_size + 2 * index_size


X = jax.random.normal(jax.random.key(1), (2, 12, 8))


def is_index(name):
  """Tells the indexer's parameters."""
  return name.startswith("index")


@functools.cache
def ready():
  module = IndexedSoftmax(width=8, **SIZES, **INDEX)
  return module, variables(module, X)


def test_as_many_tokens_as_are_chosen_are_all_seen():
  _indexed.check_all_are_seen(*ready(), Attention(width=8, **SIZES), X, is_index)


def test_the_indexer_has_no_gradient():
  _indexed.check_no_gradient(*ready(), X, is_index)
