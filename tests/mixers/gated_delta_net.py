"""Gated DeltaNet: initial values, published sizes, and its decay, which comes before the delta rule."""

import jax
import jax.numpy as jnp
import numpy as np

from attention.recurrent.gated_delta_net import GatedDeltaNet
from tests.initial import initial, spread, time_steps, uniform

SMALL = {"": dict(heads=2)}
ORACLE = {
  "": (dict(heads=2), dict(key_heads=2)),
  "shared keys": (
    dict(heads=2, value_heads=4, head_size=2, taps=3, negative_eigenvalues=True, gate="sigmoid"),
    dict(key_heads=2, beta_most=2),
  ),
}
TRAINED = {"slow": {"A_log", "dt_bias"}}
REFUSED = [
  (dict(gate="relu"), "gate='relu'; choose from ['silu', 'sigmoid']"),
  (dict(heads=2, value_heads=3), "heads=2 does not divide value_heads=3"),
  (dict(head_size=0), "head_size=0; it must be at least 1"),
  (dict(head_size=4, expand_v=0.1), "expand_v=0.1 of head_size=4 leaves no channel"),
  (dict(A_min=0.0), "low=0.0, high=16.0"),
  (dict(dt_min=1.0), "dt_min=1.0, dt_max=0.1"),
]
INITIAL = [
  (
    dict(width=256, head_size=1, expand_v=1.0),
    {"A_log": spread(0, 8, 16, atol=1), "dt_bias": time_steps(atol=0.2), "g_proj": uniform(1 / 16)},
  )
]


def count(d, heads, taps=4):
  """Queries and keys of 3/4 of the width; values, gate and out twice that; convolution; decay and step; A, dt; norm."""
  k = 3 * d // 4 // heads * heads
  return 2 * d * k + 3 * d * 2 * k + taps * 4 * k + 2 * d * heads + 2 * heads + 2 * k // heads


def test_its_published_sizes_come_with_the_width():
  """Six heads of 256 keys and 512 values at width 2048: 6 d^2 in the large matrices."""
  module = GatedDeltaNet(width=2048)
  assert module.init_state(1, 1).S.shape == (1, 6, 256, 512)
  shapes = jax.eval_shape(lambda: initial(module))
  large = [leaf.size for leaf in jax.tree.leaves(shapes) if leaf.size > 2**20]
  assert sum(large) == 6 * 2048**2


def test_the_state_decays_before_the_delta_rule():
  """A step of 1 erases the value under the key, whatever the decay; values under other keys decay."""
  module = GatedDeltaNet(width=4, heads=1, head_size=2, expand_v=1.0, taps=1)
  p = initial(module)
  p["b_proj"]["kernel"] = np.full((4, 1), 100, np.float32)
  p["qkv"]["conv"]["kernel"] = np.ones((1, 6), np.float32)
  S = np.eye(2, dtype=np.float32)[None, None]
  x = jnp.ones((1, 4))
  step = jax.jit(lambda S: module.apply({"params": p}, x, module.init_state(1, 1)._replace(S=S), method="step")[1].S)
  transition = np.asarray(step(S) - step(0 * S))[0, 0]
  k = jax.nn.silu(x @ p["qkv"]["k_proj"]["kernel"])[0]
  k = np.asarray(k / np.linalg.norm(k))
  a = np.exp(-np.exp(p["A_log"]) * jax.nn.softplus(x @ p["a_proj"]["kernel"] + p["dt_bias"]))
  np.testing.assert_allclose(transition, a * (np.eye(2) - np.outer(k, k)), atol=1e-5)
