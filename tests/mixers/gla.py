"""GLA: initial values, published sizes, and its decays."""

import jax
import jax.numpy as jnp
import numpy as np

from attention.recurrent.gla import GLA
from tests.initial import initial, uniform

SMALL = {"": dict(heads=2, gate_rank=3)}
ORACLE = {"": dict(heads=2, gate_rank=3), "wide": dict(heads=4, expand_k=1.0, expand_v=1.5, tau=2.0)}
REFUSED = [
  (dict(heads=3), "heads=3 does not divide 4 keys and 8 values"),
  (dict(heads=0), "heads=0; it must be at least 1"),
  (dict(gate_rank=0), "gate_rank=0; it must be at least 1"),
  (dict(expand_k=0.01), "expand_k=0.01 of width=8 leaves no channel"),
  (dict(tau=0.0), "tau=0.0; it must be above 0"),
]
INITIAL = [
  (
    dict(width=256, gate_rank=16, depth=16),
    {
      "q_proj v_proj": uniform(1 / 16),
      "out_proj": uniform(1 / 64),
      "a_proj/up": uniform(1 / 4),
      "a_proj/up/bias": np.zeros(128),
      "gated_norm/scale": np.ones(64),
    },
  )
]
# Four heads of 128 keys and 256 values.
STATES = [(dict(width=1024), {"S": (1, 4, 128, 256)})]


def count(d, heads, gate_rank):
  """Queries and keys, values, gate and out; the decay's map of low rank with bias; the norm."""
  return d * d + 3 * d * d + gate_rank * (d + d // 2) + d // 2 + d // heads


def test_decays_start_near_the_root_of_a_half():
  """At x = 0 the gate is at its middle, and tau such tokens halve the state."""
  module, S = GLA(width=8, heads=2, tau=4.0), np.ones((1, 2, 2, 4), np.float32)
  variables, state = {"params": initial(module)}, module.init_state(1, 1)._replace(S=S)
  step = jax.jit(lambda state: module.apply(variables, jnp.zeros((1, 8)), state, method="step")[1])
  for _ in range(4):
    state = step(state)
  np.testing.assert_allclose(state.S, S / 2, rtol=1e-6)
