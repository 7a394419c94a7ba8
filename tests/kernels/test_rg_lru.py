import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.rg_lru import IMPLS, rg_lru
from kernels.rg_lru.fused import opened, pull
from kernels.rg_lru.gates import C, bounded_sqrt, gate
from tests.kernels.compare import QUICK, TOLERANCE, anywhere, assert_close, draw, masks, spoil, values_and_gradients

B, E = 2, 3
ALL = anywhere(IMPLS)
op = jax.jit(rg_lru, static_argnames="impl", compiler_options=QUICK)


def arrays(t, dtype="float32"):
  """Decays from almost 0 to almost 1."""
  rng = np.random.default_rng(t)
  u, r, i = (draw(rng, (B, t, E), dtype) for _ in range(3))
  return u, 4 * r, i, rng.uniform(-9, 1, E).astype(dtype), draw(rng, (B, E), dtype)


def sigmoid(z):
  return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("t, masked, dtype", [(1, True, "float32"), (63, True, "float32"), (100, False, "float64")])
def test_implementations_equal_the_reference(t, masked, dtype):
  with jax.enable_x64(dtype == "float64"):
    given = arrays(t, dtype)
    where = {**masks(t), "row_reset": np.array([False, True])} if masked else {}
    want = values_and_gradients(functools.partial(rg_lru, impl="reference"), given, **where)
    if masked:
      given = tuple(spoil(where["lengths"], z) if z.ndim == 3 else z for z in given)
    got = values_and_gradients(functools.partial(rg_lru, impl="xla"), given, **where)
    assert_close(got, want, TOLERANCE[dtype])


@pytest.mark.parametrize("impl", ALL)
def test_equals_the_equations(impl):
  """A token that starts a document enters whole, wherever it stands."""
  u, r, i, a_param, h = given = arrays(8)
  reset, row_reset = np.zeros((B, 8), bool), np.array([True, False])
  reset[1, 3] = True
  y, last = op(*given, row_reset=row_reset, reset=reset, impl=impl)
  for row in range(B):
    state = h[row].astype(float)
    for t in range(8):
      a = np.exp(-C * sigmoid(r[row, t].astype(float)) * np.log1p(np.exp(a_param)))
      entered, starts = sigmoid(i[row, t]) * u[row, t], reset[row, t] or (t == 0 and row_reset[row])
      state = entered if starts else a * state + np.sqrt(1 - a**2) * entered
      np.testing.assert_allclose(y[row, t], state, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(last[row], state, rtol=1e-4, atol=1e-6)


def test_the_gates_of_kernels_are_exact_where_little_and_where_all_is_forgotten():
  """Log decays from -1e-9 to -1e2: no digits are lost to a difference of numbers near 1."""
  rate = np.geomspace(1e-9, 1e2, 1000).astype(np.float32)
  r = np.full(1000, 20, np.float32)  # its sigmoid is 1
  gates = jax.jit(opened)(r, r, rate, None)
  exact = np.exp(-rate.astype(float)), -np.expm1(-2 * rate.astype(float))
  for got, want in zip((gates.decay, gates.lost, gates.factor), (*exact, np.sqrt(exact[1]))):
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("first", [False, True])
def test_the_gradient_of_kernels_is_that_of_the_gates(first):
  """Of one step, in float32 against float64: at gates that are open and shut, and where the slope is bounded."""
  rng = np.random.default_rng(0)
  shape = 20, 30  # tokens, channels
  u, i, bar, before = draw(rng, (4, *shape), "float32")
  before = np.where(first, 0, before)
  r = rng.uniform(-15, 15, shape).astype("float32")
  a_param = rng.uniform(-12, 3, shape[1]).astype("float32")

  def step(u, r, i, a_param):
    a, inflow = gate(u, r, i, a_param, jnp.full(shape[0], first))
    return a * before + inflow

  def fused(u, r, i, a_param):
    reset = jnp.full(shape, True) if first else None
    rate, pull_rate = jax.vjp(lambda z: C * jax.nn.softplus(z), a_param)
    *bars, rate_bar = pull(opened(r, i, rate, reset), u, rate, jnp.asarray(bar), jnp.asarray(before))
    return *bars, *pull_rate(rate_bar.sum(0))

  got = jax.jit(fused)(u, r, i, a_param)
  with jax.enable_x64(True):
    want = jax.vjp(step, *(z.astype(float) for z in (u, r, i, a_param)))[1](bar.astype(float))
  for g, w in zip(got, want):
    np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5)


def test_the_slope_of_the_square_root_is_bounded():
  slope = jax.jit(jax.vmap(jax.grad(bounded_sqrt)))(jnp.array([0.0, 1e-12, 1e-6, 0.25]))
  np.testing.assert_allclose(slope, [1000, 1000, 500, 1], rtol=1e-5)
