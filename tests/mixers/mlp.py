"""MLP: small sizes, parameter count, refusals; its equation, and its last map in a deep model."""

import jax
import numpy as np

from hybrids.channel.mlp import MLP
from tests.hybrids.filled import filled
from tests.initial import initial

SMALL = {"": dict(expand=2)}
ORACLE = {}
REFUSED = [
  (dict(activation="glu"), "MLP: activation='glu'; choose from ["),
  (dict(expand=0.01), "expand=0.01 times width=8 leaves no inner channels"),
]
X = jax.random.normal(jax.random.key(0), (2, 3, 6))


def count(d, expand=4):
  return int(2 * d * expand * d)


def kernels_and_outputs(module):
  variables = filled(module, X)
  return {name: value["kernel"] for name, value in variables["params"].items()}, jax.jit(module.apply)(variables, X)


def starts_smaller_when_deeper(kind):
  shallow, deep = (initial(kind(width=6, depth=depth)) for depth in (1, 16))
  np.testing.assert_allclose(deep["out_proj"]["kernel"], shallow["out_proj"]["kernel"] / 4, rtol=1e-5)
  np.testing.assert_array_equal(deep["in_proj"]["kernel"], shallow["in_proj"]["kernel"])


def test_it_is_two_maps_around_an_activation():
  kernels, y = kernels_and_outputs(MLP(width=6, expand=2, activation="relu"))
  assert kernels["in_proj"].shape == (6, 12)
  np.testing.assert_allclose(y, np.maximum(X @ kernels["in_proj"], 0) @ kernels["out_proj"], rtol=1e-5, atol=1e-6)


def test_the_last_map_starts_smaller_in_a_deeper_model():
  starts_smaller_when_deeper(MLP)
