"""CCA: small sizes, parameter count, oracle, refusals; what it keeps of each token."""

import jax

from attention.cca import CCA

SMALL = {
  "": dict(heads=4, kv_heads=2, head_size=4, taps=3, rotary=0.5),
  "window": dict(heads=2, kv_heads=1, head_size=4, head_taps=3, window=5),
}
ORACLE = {
  "": (dict(heads=4, kv_heads=2, head_size=4, taps=3, rotary=0.5), dict(groups=2, size=4, turned=2)),
  "window": (dict(heads=2, kv_heads=1, head_size=4, head_taps=3, window=5, theta=50.0), dict(groups=1, size=4)),
}
RESUMED = ("", "window")
TRAINED = {"undecayed": {"head_bias"}}
REFUSED = [
  (dict(head_taps=0), "head_taps=0; it must be at least 1"),
  (dict(heads=3), "heads=3 does not divide width=8"),
  (dict(heads=4, kv_heads=3), "kv_heads=3 does not divide heads=4"),
  (dict(heads=1, head_size=3), "kv_heads=1 of size 3 have an odd number of channels"),
  (dict(heads=2, rotary=0.25), "rotary=0.25 of heads of size 4 turns 1 entries"),
  (dict(rotary=0.0), "rotary=0.0 is a share"),
  (dict(window=0), "window=0; it must be at least 1"),
  (dict(cache_dtype="int4"), "cache_dtype='int4'; choose from"),
]


def count(d, heads, kv_heads, head_size, taps=2, head_taps=2, **_):
  """Queries and out, keys, values; a convolution by channel and one by head, with biases; temperatures."""
  q, kv = heads * head_size, kv_heads * head_size
  return d * (2 * q + 2 * kv) + (q + kv) * (taps + 1 + head_taps * head_size + 1) + kv_heads


def test_the_cache_is_of_the_compressed_keys_and_values():
  state = CCA(width=2048, heads=8, kv_heads=2, head_size=128).init_state(1, 100)
  kept = {name: leaf.shape for name, leaf in state.cache.kept.items()}
  assert kept == {"k": (1, 2, 100, 128), "v": (1, 2, 100, 128)}
  assert sum(leaf.size for leaf in jax.tree.leaves(state[1:])) == 2 * 10 * 128 + 128
