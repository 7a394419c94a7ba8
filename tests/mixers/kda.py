"""KDA: initial values and published sizes; with one decay a head its state is that of Gated DeltaNet."""

import jax
import numpy as np
import pytest

from attention.recurrent.gated_delta_net import GatedDeltaNet
from attention.recurrent.kda import KDA
from tests.initial import initial, spread, time_steps

SMALL = {"": dict(heads=2)}
ORACLE = {
  "": dict(heads=2),
  "negative eigenvalues": (
    dict(heads=2, head_size=3, expand_v=2.0, taps=2, negative_eigenvalues=True, gate_bias=True),
    dict(beta_most=2),
  ),
  "bounded": (dict(heads=2, maps="full", lower_bound=-5.0, gate_bias=True), dict(lower_bound=-5)),
}
TRAINED = {"slow": {"A_log", "dt_bias"}}
REFUSED = [
  (dict(heads=0), "heads=0; it must be at least 1"),
  (dict(heads=9), "heads=9 of width=8 leave no channel"),
  (dict(head_size=4, expand_v=0.1), "expand_v=0.1 of head_size=4 leaves no channel"),
  (dict(lower_bound=0.0), "lower_bound=0.0; it is the least logarithm"),
  (dict(maps="dense"), "maps='dense'; choose from"),
  (dict(A_min=0.0), "low=0.0, high=16.0"),
]
INITIAL = [(dict(width=256, head_size=1), {"A_log": spread(1, 8.5, 16, 0.8), "dt_bias": time_steps(atol=0.2)})]
# Sixteen heads of 128.
STATES = [(dict(width=2048), {"S": (1, 16, 128, 128)})]


def count(d, heads, taps=4):
  """Queries, keys, values and out; convolution; step; two maps of low rank; A, dt; norm."""
  rank = d // heads
  return 4 * d * d + taps * 3 * d + d * heads + 4 * d * rank + heads + d + rank


@pytest.mark.slow
def test_with_one_decay_a_head_its_state_is_that_of_gated_delta_net():
  kda, gated = KDA(width=8, heads=2), GatedDeltaNet(width=8, heads=2, head_size=4, expand_v=1.0)
  p, q = initial(kda), initial(gated)
  p["a_proj"]["up"]["kernel"] = np.zeros_like(p["a_proj"]["up"]["kernel"])
  p["dt_bias"] = np.repeat(q["dt_bias"], 4)
  q["a_proj"]["kernel"] = np.zeros_like(q["a_proj"]["kernel"])
  p |= {name: q[name] for name in ("qkv", "b_proj", "A_log")}
  x = np.random.default_rng(0).standard_normal((2, 30, 8)).astype(np.float32)
  run = lambda module, p: jax.jit(lambda x: module.apply({"params": p}, x, module.init_state(2, 1), method="prefill"))(
    x
  )
  S, expected = run(kda, p)[1].S, run(gated, q)[1].S
  assert np.abs(expected).max() > 0.1
  np.testing.assert_allclose(S, expected, atol=1e-5)
