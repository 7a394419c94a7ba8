"""GLA's initial values, its published sizes and what its decays do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.recurrent.gla import GLA
from tests.attention.initial import initial


def test_initial_values():
  p = initial(GLA(width=256, gate_rank=16))
  for name, bound in {"q_proj": 1 / 16, "v_proj": 1 / 16, "out_proj": 1 / 16}.items():
    np.testing.assert_allclose(np.abs(p[name]["kernel"]).max(), bound, rtol=0.02)
  np.testing.assert_allclose(np.abs(p["a_proj"]["up"]["kernel"]).max(), 1 / 4, rtol=0.02)
  np.testing.assert_array_equal(p["a_proj"]["up"]["bias"], np.zeros(128))
  np.testing.assert_array_equal(p["gated_norm"]["scale"], np.ones(64))


def test_deep_models_start_with_smaller_outputs():
  kernel = initial(GLA(width=64, depth=16))["out_proj"]["kernel"]
  np.testing.assert_allclose(np.abs(kernel).max(), 64**-0.5 / 4, rtol=0.02)


def test_its_published_sizes_come_with_the_width():
  """Four heads of 128 keys and 256 values at width 1024."""
  assert GLA(width=1024).init_state(1, 1).S.shape == (1, 4, 128, 256)


def test_decays_start_near_the_root_of_a_half():
  """x = 0 is the middle of what the gate can say; tau is the number of such tokens that halve a state."""
  module, S = GLA(width=8, heads=2, tau=4.0), np.ones((1, 2, 2, 4), np.float32)
  variables, state = {"params": initial(module)}, module.init_state(1, 1)._replace(S=S)
  step = jax.jit(lambda state: module.apply(variables, jnp.zeros((1, 8)), state, method="step")[1])
  for _ in range(4):
    state = step(state)
  np.testing.assert_allclose(state.S, S / 2, rtol=1e-6)


@pytest.mark.parametrize(
  "kwargs, reason",
  [
    (dict(heads=3), "heads=3 does not divide 4 keys and 8 values"),
    (dict(heads=0), "heads=0; it must be at least 1"),
    (dict(gate_rank=0), "gate_rank=0; it must be at least 1"),
    (dict(expand_k=0.1), "expand_k=0.1 of width=8 leaves no channel"),
    (dict(tau=0.0), "tau=0.0; it must be above 0"),
  ],
)
def test_what_does_not_fit_is_named_when_the_model_is_built(kwargs, reason):
  with pytest.raises(ValueError, match=reason):
    GLA(width=8, **kwargs)
