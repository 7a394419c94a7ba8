"""Luna's initial values, and what its packed vectors let through."""

import jax
import numpy as np

from attention.efficient.luna import Luna
from tests.initial import initial, normal, uniform

SMALL = {"": dict(heads=2, packed=3), "tied": dict(heads=2, packed=3, tied=True, bias=False)}
ORACLE = {"": dict(heads=2, packed=3), "tied": dict(heads=4, packed=2, tied=True, bias=False)}
REFUSED = [(dict(heads=3), "heads=3 does not divide width=8"), (dict(packed=0), "packed=0; it must be at least 1")]
INITIAL = [
  (
    dict(width=64, packed=100),
    {
      "P": normal(1 / 8),
      "q_proj pq_proj pk_proj pv_proj k_kernel v_kernel": uniform((6 / 128 / 2) ** 0.5),
      "out_proj": uniform((6 / 128) ** 0.5),
      "k_bias": np.zeros(64),
    },
  )
]


def count(d, packed, tied=False, bias=True, **_):
  """P; four maps of tokens and of P, two of what is packed, out; keys that are values save one of each kind."""
  return packed * d + (7 - 2 * tied) * d * (d + bias)


X = jax.random.normal(jax.random.key(1), (2, 12, 8))


def test_one_packed_vector_tells_all_tokens_the_same():
  """A mean of values; two tell each token what it asks for."""
  for packed in (1, 2):
    module = Luna(width=8, heads=2, packed=packed)
    y = np.asarray(jax.jit(module.apply)({"params": initial(module)}, X))
    assert (np.ptp(y, axis=1).max() < 1e-5) == (packed == 1)
