"""Parallel: small sizes, parameter count, refusals; its sum, mean and map are those of its branches by themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.channel.mlp import MLP
from hybrids.wrap.parallel import Parallel
from layers.norms import RMSNorm
from ssm.rnn.min_gru import MinGRU
from tests import mixers
from tests.hybrids.filled import filled

BRANCHES = (dict(name="min_gru"), dict(mixer=dict(name="mlp", expand=1), norm_position="pre", scale=0.5))
SMALL = {"": dict(branches=BRANCHES, join="concat")}
ORACLE = {}
REFUSED = [
  (dict(branches=()), "branches is empty"),
  (dict(branches=BRANCHES, join="max"), "join='max'; choose from"),
  (dict(branches=(dict(mixer=dict(name="mlp"), sclae=1.0),)), "has no field 'sclae' (did you mean 'scale'"),
]


def count(d, branches, join):
  """Each branch, the norm before the second, and the map of both answers."""
  assert branches == BRANCHES
  return mixers.count("min_gru", d) + mixers.count("mlp", d, expand=1) + d + 2 * d * d * (join == "concat")


@pytest.mark.parametrize("join", ["sum", "mean", "concat"])
def test_it_is_its_branches_side_by_side(join):
  x = jax.random.normal(jax.random.key(0), (2, 5, 8))
  module = Parallel(width=8, branches=BRANCHES, join=join)
  params = filled(module, x)["params"]
  first = MinGRU(width=8).apply({"params": params["branch_0"]["mixer"]}, x)
  normed = RMSNorm().apply({"params": params["branch_1"]["norm"]}, x)
  second = 0.5 * MLP(width=8, expand=1).apply({"params": params["branch_1"]["mixer"]}, normed)
  expected = {
    "sum": lambda: first + second,
    "mean": lambda: (first + second) / 2,
    "concat": lambda: jnp.concatenate([first, second], axis=-1) @ params["out_proj"]["kernel"],
  }[join]()
  np.testing.assert_allclose(module.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-5)
