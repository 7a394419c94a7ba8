"""Channel mixers: the equation, token by token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from hybrids import mixer as mixer_lib
from tests.hybrids.filled import filled

X = jax.random.normal(jax.random.key(0), (2, 3, 6))


def run(name, **kwargs):
  module = mixer_lib.build(name, width=6, **kwargs)
  variables = filled(module, X)
  return {key: np.asarray(value["kernel"]) for key, value in variables["params"].items()}, module.apply(variables, X)


@functools.cache
def fresh(name, **kwargs):
  module = mixer_lib.build(name, width=6, **kwargs)
  return meta.unbox(jax.jit(module.init)(jax.random.key(1), X))["params"]


def test_mlp_is_two_maps_around_an_activation():
  kernels, y = run("mlp", expand=2, activation="relu")
  assert kernels["in_proj"].shape == (6, 12)
  np.testing.assert_allclose(y, np.maximum(X @ kernels["in_proj"], 0) @ kernels["out_proj"], rtol=1e-5, atol=1e-6)


def test_gated_mlp_multiplies_two_maps():
  kernels, y = run("gated_mlp")
  assert kernels["in_proj"].shape == (6, 16), "8/3 of the width, rounded up to a multiple of 8"
  gate = np.asarray(X @ kernels["gate_proj"])
  expected = (gate / (1 + np.exp(-gate)) * (X @ kernels["in_proj"])) @ kernels["out_proj"]
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mlp", "gated_mlp"])
def test_the_last_map_starts_smaller_in_a_deeper_model(name):
  shallow, deep = fresh(name), fresh(name, depth=16)
  np.testing.assert_allclose(deep["out_proj"]["kernel"], shallow["out_proj"]["kernel"] / 4, rtol=1e-5)
  np.testing.assert_array_equal(deep["in_proj"]["kernel"], shallow["in_proj"]["kernel"])


def test_a_token_is_seen_by_itself():
  for name in ("mlp", "gated_mlp"):
    module = mixer_lib.build(name, width=6)
    variables = filled(module, X)
    y, state = module.apply(variables, X[:, 1], module.init_state(2, 3), method="step")
    np.testing.assert_allclose(y, module.apply(variables, X)[:, 1], rtol=1e-5, atol=1e-6)
    assert jax.tree.leaves(state) == []


def test_bad_arguments_are_named():
  for name in ("mlp", "gated_mlp"):
    with pytest.raises(ValueError, match=rf"{name}: no activation 'glu'; choose from \["):
      jax.eval_shape(mixer_lib.build(name, width=6, activation="glu").init, jax.random.key(0), X)
  with pytest.raises(ValueError, match="expand=0.01 times width=6 leaves no inner channels"):
    jax.eval_shape(mixer_lib.build("mlp", width=6, expand=0.01).init, jax.random.key(0), X)
  with pytest.raises(ValueError, match="gated_mlp: inner=0"):
    jax.eval_shape(mixer_lib.build("gated_mlp", width=6, inner=0).init, jax.random.key(0), jnp.zeros((1, 1, 6)))
