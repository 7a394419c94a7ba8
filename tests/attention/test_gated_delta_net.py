"""Gated DeltaNet's initial values and published sizes, and its decay, which comes before the delta rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.recurrent.gated_delta_net import GatedDeltaNet
from tests.attention.initial import initial


def test_initial_values():
  p = initial(GatedDeltaNet(width=256, head_size=1, expand_v=1.0))
  A, dt = np.exp(p["A_log"]), jax.nn.softplus(p["dt_bias"])
  np.testing.assert_allclose([A.min(), A.mean(), A.max()], [0, 8, 16], atol=1)
  assert A.min() >= 1e-3
  np.testing.assert_allclose(np.log10([dt.min(), np.median(dt), dt.max()]), [-3, -2, -1], atol=0.2)
  np.testing.assert_allclose(np.abs(p["g_proj"]["kernel"]).max(), 1 / 16, rtol=0.02)


def test_its_published_sizes_come_with_the_width():
  """Six heads of 256 keys and 512 values at width 2048: 6 d^2 in the large matrices."""
  module = GatedDeltaNet(width=2048)
  assert module.init_state(1, 1).S.shape == (1, 6, 256, 512)
  shapes = jax.eval_shape(lambda: initial(module))
  large = [leaf.size for leaf in jax.tree.leaves(shapes) if leaf.size > 2**20]
  assert sum(large) == 6 * 2048**2


def test_the_state_decays_before_the_delta_rule():
  """A step of 1 leaves nothing of what the key finds, whatever the decay; what it does not find decays."""
  module = GatedDeltaNet(width=4, heads=1, head_size=2, expand_v=1.0, taps=1)
  p = initial(module)
  p["b_proj"]["kernel"] = np.full((4, 1), 100, np.float32)
  p["qkv"]["conv"]["kernel"] = np.ones((1, 6), np.float32)
  S = np.eye(2, dtype=np.float32)[None, None]
  x = jnp.ones((1, 4))
  step = jax.jit(lambda S: module.apply({"params": p}, x, module.init_state(1, 1)._replace(S=S), method="step")[1].S)
  kept = np.asarray(step(S) - step(0 * S))[0, 0]
  k = jax.nn.silu(x @ p["qkv"]["k_proj"]["kernel"])[0]
  k = np.asarray(k / np.linalg.norm(k))
  a = np.exp(-np.exp(p["A_log"]) * jax.nn.softplus(x @ p["a_proj"]["kernel"] + p["dt_bias"]))
  np.testing.assert_allclose(kept, a * (np.eye(2) - np.outer(k, k)), atol=1e-5)


@pytest.mark.parametrize(
  "kwargs, reason",
  [
    (dict(heads=2, value_heads=3), "heads=2 does not divide value_heads=3"),
    (dict(head_size=0), "head_size=0; it must be at least 1"),
    (dict(head_size=4, expand_v=0.1), "expand_v=0.1 of head_size=4 leaves no channel"),
    (dict(A_min=0.0), "low=0.0, high=16.0"),
    (dict(dt_min=1.0), "dt_min=1.0, dt_max=0.1"),
  ],
)
def test_what_does_not_fit_is_named_when_the_model_is_built(kwargs, reason):
  with pytest.raises(ValueError, match=reason):
    GatedDeltaNet(width=8, **kwargs)
