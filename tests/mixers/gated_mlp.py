"""GatedMLP: small sizes, parameter count, refusals; its equation, and its last map in a deep model."""

import jax
import numpy as np

from hybrids.channel.gated_mlp import GatedMLP
from tests.mixers.mlp import X, kernels_and_outputs, starts_smaller_when_deeper

SMALL = {"": {}}
ORACLE = {}
REFUSED = [(dict(inner=0), "GatedMLP: inner=0"), (dict(activation="glu"), "GatedMLP: activation='glu'; choose from [")]


def count(d, inner=24):
  return 3 * d * inner


def test_it_multiplies_two_maps():
  kernels, y = kernels_and_outputs(GatedMLP(width=6))
  assert kernels["in_proj"].shape == (6, 16), "8/3 of the width, rounded up to a multiple of 8"
  expected = (jax.nn.silu(X @ kernels["gate_proj"]) * (X @ kernels["in_proj"])) @ kernels["out_proj"]
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_the_last_map_starts_smaller_in_a_deeper_model():
  starts_smaller_when_deeper(GatedMLP)
