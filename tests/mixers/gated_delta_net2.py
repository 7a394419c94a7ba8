"""Gated DeltaNet-2: published sizes; with the same gate for all channels it is KDA."""

import jax
import numpy as np

from attention.recurrent.gated_delta_net2 import GatedDeltaNet2
from attention.recurrent.kda import KDA
from tests.initial import initial, spread, time_steps

SMALL = {"": dict(heads=2)}
ORACLE = {
  "": dict(heads=2),
  "negative eigenvalues": (
    dict(heads=2, head_size=3, expand_v=2.0, taps=2, negative_eigenvalues=True),
    dict(erase_most=2),
  ),
}
TRAINED = {"slow": {"A_log", "dt_bias"}}
REFUSED = [(dict(head_size=4, expand_v=0.1), "GatedDeltaNet2: expand_v=0.1 of head_size=4 leaves no channel")]
INITIAL = [(dict(width=256, head_size=1), {"A_log": spread(1, 8.5, 16, 0.8), "dt_bias": time_steps(atol=0.2)})]
# Sixteen heads of 128.
STATES = [(dict(width=2048), {"S": (1, 16, 128, 128)})]


def count(d, heads, taps=4):
  """Queries, keys, values and out, both gates; convolution; two maps of low rank, one with a bias; A, dt; norm."""
  rank = d // heads
  return 6 * d * d + taps * 3 * d + 4 * d * rank + d + heads + d + rank


def test_with_one_gate_for_all_channels_it_is_kda():
  kda, two = KDA(width=8, heads=2, gate_bias=True), GatedDeltaNet2(width=8, heads=2)
  p = initial(kda)
  by_channel = np.repeat(np.asarray(p["b_proj"]["kernel"]), 4, axis=1)
  q = p | {name: {"kernel": by_channel} for name in ("b_proj", "w_proj")}
  x = np.random.default_rng(0).standard_normal((2, 9, 8)).astype(np.float32)
  run = lambda module, p: jax.jit(module.apply)({"params": p}, x)
  np.testing.assert_allclose(run(two, q), run(kda, p), atol=1e-6)
