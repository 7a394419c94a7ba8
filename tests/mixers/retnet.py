"""RetNet: initial values, published sizes, decays, and relative positions."""

import jax
import jax.numpy as jnp
import numpy as np

from attention.recurrent.retnet import RetNet, State
from kernels.ssd import ssd
from tests.initial import initial, uniform

SMALL = {"": dict(heads=2)}
ORACLE = {"": dict(heads=2), "wide": (dict(heads=4, expand_v=1.5, norm_eps=1e-2), dict(eps=1e-2))}
REFUSED = [
  (dict(width=9), "width=9 is odd; pairs of channels turn"),
  (dict(heads=3), "heads=3 does not divide width=8 and 16 values"),
  (dict(heads=8), "heads=8 of width=8 have odd size 1; pairs turn"),
  (dict(heads=0), "heads=0; it must be at least 1"),
  (dict(expand_v=0.01), "expand_v=0.01 of width=8 leaves no channel"),
  (dict(heads=4, expand_v=1.25), "heads=4 does not divide width=8 and 10 values"),
]
INITIAL = [
  (
    dict(width=256),
    {
      "q_proj k_proj": uniform(2**-2.5 * (6 / 512) ** 0.5, 0.01),
      "v_proj g_proj": uniform(2**-2.5 * (6 / 768) ** 0.5, 0.01),
      "out_proj": uniform(0.5 * (6 / 768) ** 0.5, 0.01),
    },
  )
]
STATES = [
  # eight heads of 256 keys and 512 values
  (dict(width=2048), {"S": (1, 8, 256, 512)}),
  # the default number of heads divides the values too
  (dict(width=20, expand_v=1.3), {"S": (1, 2, 10, 13)}),
  (dict(width=24, expand_v=1.3), {"S": (1, 1, 24, 31)}),
  (dict(width=24, expand_v=2.0), {"S": (1, 6, 4, 8)}),
]


def count(d, heads, expand_v=2):
  """Queries and keys; values, gate and out."""
  return 2 * d * d + 3 * expand_v * d * d


def test_every_head_forgets_half_as_fast_as_the_one_before():
  module = RetNet(width=32, heads=16)
  S = np.ones((1, 16, 2, 4), np.float32)
  state = State(S, jnp.array([5], jnp.int32))
  p = initial(module)
  _, state = jax.jit(lambda state: module.apply({"params": p}, jnp.zeros((1, 32)), state, method="step"))(state)
  lost = 1 - np.asarray(state.S, np.float64)[0, :, 0, 0]
  # the resolution of float32 beside 1
  np.testing.assert_allclose(lost, 2.0 ** -np.arange(5, 21), atol=6e-8)
  assert state.length == 6


def test_only_differences_of_positions_matter():
  """Outputs do not depend on where in a document the tokens stand, up to the norm's eps."""
  module = RetNet(width=16, heads=2, norm_eps=0.0)
  p = initial(module)
  x = jax.random.normal(jax.random.key(0), (1, 9, 16))
  run = jax.jit(lambda start: module.apply({"params": p}, x, start, method="prefill")[0])
  late = module.init_state(1, 1)._replace(length=jnp.array([300], jnp.int32))
  np.testing.assert_allclose(run(late), run(module.init_state(1, 1)), atol=1e-5)


def test_slow_decays_at_odd_lengths_equal_the_step_loop():
  """Sixteen heads, the last of which halves in a million tokens; in values and gradients."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  q, k, v, S, weights = (
    draw(2, 131, 16, 2),
    draw(2, 131, 16, 2),
    draw(2, 131, 16, 3),
    draw(2, 16, 2, 3),
    draw(131, 16, 3),
  )
  log_a = jnp.broadcast_to(jnp.asarray(np.log1p(-(2.0 ** -np.arange(5, 21))), jnp.float32), (2, 131, 16))
  loss = lambda impl: jax.jit(
    jax.value_and_grad(lambda *z: jnp.sum(weights * ssd(*z[:3], log_a, z[3], impl=impl)[0]), argnums=(0, 1, 2, 3))
  )
  chunks, steps = loss("xla")(q, k, v, S), loss("reference")(q, k, v, S)
  for actual, expected in zip(jax.tree.leaves(chunks), jax.tree.leaves(steps)):
    np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())
