"""Gated DeltaProduct: sizes by the number of products, one product is Gated DeltaNet, and two make a rotation."""

import jax
import jax.numpy as jnp
import numpy as np

from attention.recurrent.gated_delta_net import GatedDeltaNet
from attention.recurrent.gated_delta_product import GatedDeltaProduct
from tests.initial import initial

SMALL = {"": dict(heads=2)}
ORACLE = {
  "": (dict(heads=2), dict(key_heads=2, heads=2, products=2)),
  "three, shared keys": (
    dict(heads=2, value_heads=4, head_size=2, taps=3, products=3, negative_eigenvalues=False),
    dict(key_heads=2, heads=4, products=3, beta_most=1),
  ),
  "no decay": (dict(heads=2, decay=False), dict(key_heads=2, heads=2, products=2, decay=False)),
}
TRAINED = {"slow": {"A_log", "dt_bias"}}
REFUSED = [
  (dict(products=0), "products=0; it must be at least 1"),
  (dict(heads=2, value_heads=3), "GatedDeltaProduct: heads=2 does not divide value_heads=3"),
]
# The state is that of Gated DeltaNet, however many products there are.
STATES = [(dict(width=2048, products=4), {"S": (1, 6, 256, 512)})]


def count(d, heads, taps=4, products=2):
  """Queries; keys and values of each product; gate, out; convolution; decay and steps; A, dt; norm."""
  k = 3 * d // 4 // heads * heads
  return (
    d * k + products * 3 * d * k + 4 * d * k + taps * (1 + 3 * products) * k
    + (1 + products) * d * heads + 2 * heads + 2 * k // heads
  )  # fmt: skip


def test_one_product_is_gated_delta_net():
  one = GatedDeltaProduct(width=8, heads=2, products=1, negative_eigenvalues=False)
  p = initial(one)
  x = np.random.default_rng(0).standard_normal((2, 9, 8)).astype(np.float32)
  run = lambda module: jax.jit(module.apply)({"params": p}, x)
  np.testing.assert_allclose(run(one), run(GatedDeltaNet(width=8, heads=2)), atol=1e-6)


def test_two_products_turn_a_state_by_any_angle():
  """Two mirrors whose axes are an angle of 36 degrees apart turn a plane by 72: five tokens are one turn."""
  module = GatedDeltaProduct(width=4, heads=1, head_size=2, expand_v=1.0, taps=1, decay=False)
  # keys come out of a SiLU of large numbers, so that they are not below 0
  angles = np.deg2rad([20, 56])
  keys = np.stack([np.cos(angles), np.sin(angles)], axis=1)
  p = initial(module)
  p["qkv"]["conv"]["kernel"] = np.ones_like(p["qkv"]["conv"]["kernel"])
  p["qkv"]["k_proj"]["kernel"] = np.zeros((4, 4), np.float32)
  p["qkv"]["k_proj"]["kernel"][0] = 100 * keys.ravel()
  p["qkv"]["v_proj"]["kernel"] = np.zeros((4, 4), np.float32)
  p["b_proj"]["kernel"] = np.full((4, 2), 100, np.float32)
  state = module.init_state(1, 1)._replace(S=jnp.eye(2)[None, None])
  x = jnp.eye(4)[:1]
  step = jax.jit(lambda state: module.apply({"params": p}, x, state, method="step")[1])
  once = np.asarray(step(state).S[0, 0])
  np.testing.assert_allclose(once @ once.T, np.eye(2), atol=1e-5)
  np.testing.assert_allclose(np.trace(once), 2 * np.cos(2 * np.pi / 5), atol=1e-5)
  for _ in range(5):
    state = step(state)
  np.testing.assert_allclose(state.S[0, 0], np.eye(2), atol=1e-4)
