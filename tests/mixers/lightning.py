"""Lightning attention: decays, initial values, published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.recurrent.lightning import Lightning
from hybrids.mixer import build
from tests.initial import uniform, variables

SMALL = {"": dict(heads=2, head_size=3)}
ORACLE = {
  "": (dict(head_size=4), dict(heads=2, left=1 + 1e-5)),
  "third of five": (dict(heads=3, head_size=2, layer=2, depth=5), dict(left=1 - 2 / (4 + 1e-5) + 1e-5)),
}
REFUSED = [
  (dict(heads=3), "heads=3 does not divide width=8"),
  (dict(head_size=3), "head_size=3 does not divide width=8"),
  (dict(head_size=0), "head_size=0; it must be at least 1"),
  (dict(layer=2, depth=2), "layer=2; it is counted from 0 and must be below depth=2"),
]
INITIAL = [
  (
    dict(width=256, depth=4),
    {"q_proj v_proj g_proj": uniform(1 / 16, 0.01), "out_proj": uniform(1 / 32, 0.01), "norm/scale": np.ones(256)},
  )
]
# TransNormerLLM's, and MiniMax-01's, whose heads are wider together than the model.
STATES = [
  (dict(width=4096), {"S": (1, 32, 128, 128)}),
  (dict(width=6144, heads=64, head_size=128), {"S": (1, 64, 128, 128)}),
]


def count(d, heads, head_size):
  """Queries, keys, values, gate and out; the norm."""
  return 5 * d * heads * head_size + heads * head_size


def rates(**kwargs):
  return variables(Lightning(**kwargs))["buffers"]["rate"]


def test_heads_forget_at_rates_from_one_half_to_an_eighth_power_of_it():
  np.testing.assert_allclose(rates(width=64, heads=8), 2.0 ** -np.arange(1, 9), rtol=2e-5)
  np.testing.assert_allclose(rates(width=48, heads=3), 2.0 ** (-8 * np.arange(1, 4) / 3), rtol=2e-5)


@pytest.mark.parametrize("layer, left", [(0, 1), (1, 0.75), (2, 0.5), (3, 0.25), (4, 1.25e-5)])
def test_later_layers_forget_less(layer, left):
  np.testing.assert_allclose(
    rates(width=8, head_size=4, layer=layer, depth=5), left * np.array([1 / 16, 1 / 256]), rtol=1e-4
  )


def test_a_stack_that_runs_its_layers_in_a_loop_keeps_their_decays_apart():
  """One program runs all layers, so their rates are arrays, and each layer uses its own."""
  spec = dict(name="lightning", head_size=4)
  stack = build("stack", width=8, depth=3, pattern="l", letters={"l": spec})
  x = jax.random.normal(jax.random.key(0), (1, 30, 8))
  variables = jax.jit(stack.init)(jax.random.key(1), x)
  stacked = jax.tree.leaves(variables["buffers"])
  assert [leaf.shape for leaf in stacked] == [(3, 2)]
  np.testing.assert_allclose(stacked[0][:, 0] * 16, [1, 0.5, 1.5e-5], rtol=1e-4, atol=1e-8)
  frozen = jax.tree.map(lambda rate: jnp.broadcast_to(rate[:1], rate.shape), variables["buffers"])
  run = jax.jit(stack.apply)
  assert np.abs(run(variables, x) - run({**variables, "buffers": frozen}, x)).max() > 1e-3
