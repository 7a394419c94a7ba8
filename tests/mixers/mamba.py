"""Mamba: small sizes, parameter count, oracle, refusals; initial values, published sizes, and the step's extremes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.selective_scan import selective_scan
from ssm.selective.mamba import Mamba
from tests.initial import close, made, time_steps, uniform

SMALL = {
  "": dict(state=4, dt_rank=2),
  "complex": dict(state=4, dt_rank=2, spectrum="complex", disc="zoh", groups=2, norms="learned"),
  "heads": dict(state=3, dt_rank=2, groups=4, heads=2, norms="learned"),
}
ORACLE = {
  "": dict(state=4, dt_rank=2),
  "biases": dict(state=3, taps=2, inner=7, bias=True, conv_bias=False),
  "complex": dict(state=4, spectrum="complex", disc="zoh", groups=2, norms="learned"),
  "weightless": dict(state=3, disc="zoh", norms="weightless", norm_eps=0.1),
  "heads": dict(state=3, dt_rank=2, groups=4, heads=2),
}
TRAINED = {"slow": {"A_log", "A_im"}}
REFUSED = [
  (dict(state=0), "state=0; it must be at least 1"),
  (dict(taps=0), "taps=0; it must be at least 1"),
  (dict(dt_rank=-1), "dt_rank=-1"),
  (dict(groups=3), "groups=3 does not divide the inner width 16"),
  (dict(groups=2, heads=4), "heads=4 does not divide groups=2"),
  (dict(spectrum="complex", state=5), "state=5; conjugate pairs are stored once, so it must be even"),
  (dict(spectrum="imaginary"), "spectrum='imaginary'; choose from"),
  (dict(disc="bilinear"), "disc='bilinear'; choose from"),
  (dict(norms="layer"), "norms='layer'; choose from"),
  (dict(dt_min=1.0), "dt_min=1.0, dt_max=0.1"),
]
INITIAL = [
  (
    dict(width=128),
    {
      "A_log": close(np.tile(np.arange(1, 17), (256, 1)), of=np.exp),
      "D": 1,
      "dt_proj/bias": time_steps(),
      "in_proj": uniform(128**-0.5),
      "x_proj out_proj": uniform(256**-0.5),
      "dt_proj": uniform(8**-0.5),
      "conv": uniform(4**-0.5),
    },
  ),
  # A_n = -1/2 + i n (sec. 3.6)
  (
    dict(width=8, state=6, spectrum="complex"),
    {"A_log": close(np.full((16, 3), 0.5), of=np.exp), "A_im": np.tile(np.arange(3), (16, 1))},
  ),
  # deep models start with smaller outputs
  (dict(width=64, depth=16), {"out_proj": uniform(128**-0.5 / 4)}),
]


def count(d, state=16, expand=2, taps=4, dt_rank=1, groups=1, heads=1, norms="none", **_):
  """In, out; convolution with bias; A (complex: two parts, half as many), D; delta, B and C; dt with bias; norms."""
  e, selected = expand * d, dt_rank + 2 * groups // heads * state
  total = 2 * d * e + e * d + e * (taps + 1) + e * (state + 1) + e * selected + (dt_rank + 1) * e
  return total + (norms == "learned") * selected


initial = functools.partial(made, Mamba)


def test_one_state_is_a_gated_rnn():
  """Theorem 1: with N = 1, A = -1 and B = C = 1, h_t = (1 - g_t) h_{t-1} + g_t u_t, g = sigmoid(dt's input)."""
  rng = np.random.default_rng(0)
  u, s, h = rng.standard_normal((1, 20, 3)), rng.standard_normal((1, 20, 3)), rng.standard_normal((1, 3, 1))
  ones = np.ones((1, 20, 1, 1))
  y, last = selective_scan(*map(jnp.float32, (u, np.log1p(np.exp(s)), -np.ones((3, 1)), ones, ones, h)), disc="zoh")
  g, state = 1 / (1 + np.exp(-s)), h[..., 0]
  for t in range(20):
    state = (1 - g[:, t]) * state + g[:, t] * u[:, t]
    np.testing.assert_allclose(y[:, t], state, atol=1e-5)
  np.testing.assert_allclose(last[..., 0], state, atol=1e-5)


def test_a_complex_state_is_a_pair_of_real_ones():
  """Turned and shrunk together: exp(dt (a + i b)) acts on (re, im) as a rotation by dt b times exp(dt a)."""
  rng = np.random.default_rng(0)
  u, dt = rng.standard_normal((1, 9, 1)), rng.uniform(0.1, 1, (1, 9, 1))
  B, C = rng.standard_normal((2, 1, 9, 1, 1, 2))
  a, b = -0.3, 2.0
  y, _ = selective_scan(
    *map(jnp.float32, (u, dt)),
    jnp.full((1, 1), a + 1j * b, jnp.complex64),
    *(jnp.asarray(z[..., 0] + 1j * z[..., 1], jnp.complex64) for z in (B, C)),
    jnp.zeros((1, 1, 1), jnp.complex64),
  )
  h = np.zeros(2)
  for t in range(9):
    angle, step = dt[0, t, 0] * b, dt[0, t, 0]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    h = np.exp(step * a) * turn @ h + step * u[0, t, 0] * B[0, t, 0, 0]
    np.testing.assert_allclose(y[0, t, 0], C[0, t, 0, 0] @ (h * [1, -1]), atol=1e-5)


def test_steps_do_not_start_below_the_floor():
  bias = initial(64, dt_min=1e-6, dt_floor=1e-3)[1]["params"]["dt_proj"]["bias"]
  assert jax.nn.softplus(bias).min() >= 0.999e-3


@pytest.mark.parametrize(
  "width, depth, total", [(768, 24, 129135360), (1024, 48, 371516416), (2048, 48, 1372178432), (2560, 64, 2768345600)]
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
  u = jax.ShapeDtypeStruct((1, 1, 16), jnp.bfloat16)
  seen = jax.eval_shape(lambda u: module.apply(variables, u, method="_select"), u)
  assert [value.dtype for value in seen] == [jnp.float32, jnp.bfloat16, jnp.bfloat16]


@pytest.mark.slow
def test_a_quarter_of_a_million_tokens_in_chunks():
  """Float32, 16,384 tokens a call, against float64 in one: nothing drifts, and the last state is as right as the first.

  With a channel whose decay is next to none: A = -1e-5 and the smallest step keep what they were told for ever.
  """
  module, variables = initial(4, state=4, dt_rank=1)
  variables["params"]["A_log"] = variables["params"]["A_log"].at[0].set(np.log(1e-5))
  x = np.random.default_rng(0).standard_normal((1, 2**18, 4)).astype(np.float32)
  prefill = jax.jit(module.apply, static_argnames="method")
  state, worst = module.init_state(1, 2**18), 0.0
  with jax.enable_x64(True):
    wide = jax.tree.map(lambda z: jnp.asarray(z, jnp.float64), (variables, x))
    exact = np.asarray(jax.jit(module.apply)(*wide))
  for start in range(0, 2**18, 2**14):
    y, state = prefill(variables, x[:, start : start + 2**14], state, method="prefill")
    worst = max(worst, np.abs(y - exact[:, start : start + 2**14]).max())
  assert exact.dtype == np.float64
  assert worst < 1e-4 * np.abs(exact).max()
