"""TitansMAG: small sizes, parameter count, oracle, refusals; the gate, and the parts it is made of."""

import jax
import numpy as np

from attention.recurrent.titans_mag import TitansMAG
from attention.softmax import Attention
from tests.initial import initial, normal
from tests.mixers import titans_mal

SMALL = {"": dict(heads=2, persistent=2, window=4, memory=dict(inner=3, chunk=3))}
ORACLE = {
  "": (
    dict(heads=2, persistent=3, window=4, memory=dict(heads=2, inner=3, chunk=4)),
    dict(memory=dict(heads=2, layers=2, chunk=4), attention=dict(heads=2, window=4, position="rope", persistent=3)),
  )
}
RESUMED = ("",)
REFUSED = [
  (dict(heads=3), "heads=3 does not divide width=8"),
  (dict(persistent=-1), "persistent=-1; it must be at least 0"),
  (dict(window=0), "window=0; it must be at least 1"),
  (dict(position="alibi"), "persistent=4 with position='alibi'"),
  (dict(memory=dict(chunk=0)), "Titans: chunk=0"),
  (dict(memory=dict(chunks=4)), "TitansMAG: memory has no field 'chunks' (did you mean 'chunk'"),
  (dict(memory=dict(width=4)), "TitansMAG: memory sets width=4 in a mixer of width=8; leave it out"),
]
INITIAL = [
  (dict(width=64, persistent=64), {"attention/P": normal(0.02), "gate/y_norm/scale gate/m_norm/scale": np.ones(64)})
]
# A memory and a window.
STATES = [
  (
    dict(width=64, heads=4, window=5, memory=dict(layers=1, chunk=1)),
    {"memory/weights/0": (1, 1, 64, 64), "attention/kept/k": (1, 4, 5, 16)},
  )
]


X = jax.random.normal(jax.random.key(0), (2, 13, 8))


def count(d, **fields):
  """A memory and attention, and a norm of each."""
  return titans_mal.count(d, **fields) + 2 * d


def unwritten(p):
  """Parameters with which the memory takes steps of 0."""
  p = jax.tree.map(np.array, p)
  p["titans"]["gates"]["kernel"][:], p["titans"]["gates"]["bias"][:] = 0, -1e4
  return p


def test_without_a_memory_it_is_normed_attention_times_one_half():
  """A linear memory that was never written answers 0, whose sigmoid is 1/2."""
  kwargs = dict(heads=2, window=4, position="rope")
  module = TitansMAG(width=8, persistent=0, memory=dict(layers=1), norm_eps=0.1, **kwargs)
  p = unwritten(initial(module))
  y = jax.jit(Attention(width=8, **kwargs).apply)({"params": p["attention"]}, X)
  want = 0.5 * y / np.sqrt((np.asarray(y) ** 2).mean(-1, keepdims=True) + 0.1)
  np.testing.assert_allclose(jax.jit(module.apply)({"params": p}, X), want, atol=1e-5)
