"""TitansMAC: small sizes, parameter count, oracle, refusals; segments know of each other through the memory alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.recurrent.titans_mac import TitansMAC
from tests.initial import initial
from tests.mixers import titans_mag
from tests.mixers.titans_mag import unwritten
from tests.stepped import stepped

SMALL = {
  "": dict(heads=2, persistent=2, segment=4, memory=dict(inner=3, chunk=3)),
  "linear": dict(heads=2, persistent=0, segment=3, position="none", memory=dict(layers=1, chunk=3)),
}
ORACLE = {
  "": (
    dict(heads=2, persistent=3, segment=4, memory=dict(heads=2, inner=3, chunk=3)),
    dict(position="rope", memory=dict(heads=2, layers=2, chunk=3)),
  ),
  "linear": (
    dict(heads=4, persistent=0, segment=5, position="none", memory=dict(layers=1, chunk=5)),
    dict(memory=dict(heads=1, layers=1, chunk=5)),
  ),
}
SLOW = ("linear",)
REFUSED = [
  (dict(segment=0), "TitansMAC: segment=0; it must be at least 1"),
  (dict(memory=dict(chunks=3)), "TitansMAC: memory has no field 'chunks' (did you mean 'chunk'?)"),
  (dict(memory=dict(chunk="3")), "memory: chunk='3' must be of type int"),
  (dict(memory=dict(width=4)), "TitansMAC: memory sets width=4 in a mixer of width=8"),
]
# Room for a segment, and what is recalled for it.
STATES = [
  (
    dict(width=64, heads=4),
    {"kept/k": (1, 256, 4, 16), "kept/v": (1, 256, 4, 16), "past/0": (1, 1, 64, 256), "past/1": (1, 1, 256, 64)},
  )
]


SIZES = dict(width=8, heads=2, persistent=1, segment=4)


def count(d, **fields):
  """A memory beside attention, and the map of what asks the memory."""
  return titans_mag.count(d, **fields) + d * d


@pytest.mark.slow
@pytest.mark.parametrize("written", [False, True])
def test_segments_know_of_each_other_through_the_memory_alone(written):
  """A document of ten tokens after one of three: which tokens the last of each reads."""
  module = TitansMAC(**SIZES, memory=dict(inner=3, chunk=2, taps=1))
  p = initial(module) if written else unwritten(initial(module))
  reset = jnp.arange(13)[None] == 3
  run = lambda x: module.apply({"params": p}, x, reset=reset)[0]
  x = jax.random.normal(jax.random.key(0), (1, 13, 8))
  jacobian = np.abs(jax.jit(jax.jacobian(run))(x))[:, :, 0].max(axis=(1, 3))
  document = (np.arange(13) >= 3).astype(int)
  segment = np.where(document, np.arange(13) - 3, np.arange(13)) // 4
  causal = np.tri(13, dtype=bool) & (document[:, None] == document)
  near = causal & (segment[:, None] == segment)
  np.testing.assert_array_equal(jacobian > 0, causal if written else near)


def test_what_is_recalled_is_the_memory_before_the_segment():
  module = TitansMAC(**SIZES, memory=dict(inner=3, chunk=3))
  p = {"params": initial(module)}
  x = jax.random.normal(jax.random.key(0), (1, 9, 8))
  _, states = stepped(module, p, x, module.init_state(1, 9))
  for i, state in enumerate(states):
    before = i - i % 4 - 1
    want = (
      states[before].memory.weights if before >= 0 else (p["params"]["titans"][f"M_{layer}"][None] for layer in (0, 1))
    )
    for got, weights in zip(state.past, want):
      np.testing.assert_array_equal(got, weights)
