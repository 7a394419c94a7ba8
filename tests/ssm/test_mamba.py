"""Mamba's initial values, its published sizes, and what its step does at the extremes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssm.selective.mamba import Mamba


def initial(width, **kwargs):
  module = Mamba(width=width, **kwargs)
  return module, nn.unbox(jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1, width))))


def test_initial_values():
  _, variables = initial(128)
  p = variables["params"]
  np.testing.assert_allclose(-np.exp(p["A_log"]), np.tile(-np.arange(1, 17), (256, 1)), rtol=1e-6)
  np.testing.assert_array_equal(p["D"], 1)
  dt = jax.nn.softplus(p["dt_proj"]["bias"])
  np.testing.assert_allclose(np.log10([dt.min(), np.median(dt), dt.max()]), [-3, -2, -1], atol=0.15)
  bounds = {"in_proj": 128**-0.5, "x_proj": 256**-0.5, "dt_proj": 8**-0.5, "out_proj": 256**-0.5, "conv": 4**-0.5}
  for name, bound in bounds.items():
    np.testing.assert_allclose(np.abs(p[name]["kernel"]).max(), bound, rtol=0.02)


def test_deep_models_start_with_smaller_outputs():
  kernel = initial(64, depth=16)[1]["params"]["out_proj"]["kernel"]
  np.testing.assert_allclose(np.abs(kernel).max(), 128**-0.5 / 4, rtol=0.02)


def test_steps_do_not_start_below_the_floor():
  bias = initial(64, dt_min=1e-6, dt_floor=1e-3)[1]["params"]["dt_proj"]["bias"]
  assert jax.nn.softplus(bias).min() >= 0.999e-3


@pytest.mark.parametrize(
  "width, depth, total",
  [(768, 24, 129135360), (1024, 48, 371516416), (2048, 48, 1372178432), (2560, 64, 2768345600)],
)
def test_published_sizes(width, depth, total):
  """mamba-130m, -370m, -1.4b and -2.8b: so many layers with a norm each, a last norm, and tied embeddings."""
  shape = jax.eval_shape(Mamba(width=width).init, jax.random.key(0), jnp.zeros((1, 1, width)))
  layer = sum(leaf.size for leaf in jax.tree.leaves(shape))
  assert depth * (layer + width) + width + 50280 * width == total


def test_the_step_chooses_between_keeping_and_taking():
  """dt -> 0 leaves the state as it is; dt -> inf forgets it (sec. 3.5.2)."""
  module, variables = initial(8, state=4)
  bias = variables["params"]["dt_proj"]["bias"]
  state = module.init_state(1, 4)._replace(h=jax.random.normal(jax.random.key(1), (1, 16, 4)))
  x = jax.random.normal(jax.random.key(2), (1, 8))

  step = jax.jit(functools.partial(module.apply, method="step"))

  def after(shift):
    variables["params"]["dt_proj"]["bias"] = bias + shift
    return [step(variables, x, state._replace(h=h))[1].h for h in (state.h, 0 * state.h)]

  kept, _ = after(-50.0)
  np.testing.assert_allclose(kept, state.h, rtol=1e-6)
  with_history, without = after(50.0)
  np.testing.assert_allclose(with_history, without, rtol=1e-6)


def test_steps_are_float32_for_bfloat16_inputs():
  """bfloat16 holds 0.1 + 1e-4 as 0.1; a state that decays by exp(-dt) would not see the difference."""
  module, variables = initial(8, state=4)
  seen = jax.eval_shape(
    lambda u: module.apply(variables, u, method="_select"), jax.ShapeDtypeStruct((1, 1, 16), jnp.bfloat16)
  )
  assert [value.dtype for value in seen] == [jnp.float32, jnp.bfloat16, jnp.bfloat16]


@pytest.mark.parametrize(
  "kwargs, reason",
  [
    (dict(state=0), "state=0; it must be at least 1"),
    (dict(taps=0), "taps=0; it must be at least 1"),
    (dict(dt_rank=-1), "dt_rank=-1"),
    (dict(dt_min=1.0), "dt_min=1.0, dt_max=0.1"),
  ],
)
def test_what_does_not_fit_is_named_when_the_model_is_built(kwargs, reason):
  with pytest.raises(ValueError, match=reason):
    Mamba(width=8, **kwargs)
