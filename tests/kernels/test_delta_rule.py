import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.delta_rule import delta_rule
from kernels.gated_linear_attention import gated_linear_attention
from tests.kernels.compare import QUICK, TOLERANCE, assert_close, draw, values_and_gradients

ROWS, H, K, P = 2, 2, 3, 5
op = jax.jit(delta_rule, static_argnames="impl", compiler_options=QUICK)


def arrays(kind, t, dtype="float32", beta=None, weak=0.0):
  """Keys of length 1, steps in [0, 2], 0, 1 and 2 among them, decays from nearly none to 1e-2 a token."""
  rng = np.random.default_rng(t)
  q, x = draw(rng, (2, ROWS, t, H, K), dtype)
  x /= np.linalg.norm(x, axis=-1, keepdims=True)
  v, S = draw(rng, (ROWS, t, H, P), dtype), draw(rng, (ROWS, H, K, P), dtype)
  steps = rng.uniform(-0.5, 2.5, (ROWS, t, H, 1)).clip(0, 2)
  steps[:, ::5] = 1
  k = (steps if beta is None else np.full_like(steps, beta)).astype(dtype) * x
  log_a = -(10.0 ** rng.uniform(-3, 0.7, (ROWS, t, H, 1 if kind == "gated" else K))).astype(dtype)
  if kind == "delta":
    return q, k, v, x, S
  if kind == "general":
    # RWKV-7: u and k are apart
    return q, draw(rng, x.shape, dtype), v, x, S, (-rng.uniform(size=x.shape) * x).astype(dtype), log_a
  return q, k, v, np.exp(log_a) * x, S, None, log_a


def run(impl, given):
  return values_and_gradients(functools.partial(delta_rule, impl=impl), given)


@pytest.mark.parametrize("kind", ["delta", "general"])
def test_the_definition_is_the_recurrence(kind):
  given = arrays(kind, 9)
  y, last = op(*given, impl="reference")
  q, k, v, w, S, u, log_a = given if len(given) == 7 else (*given, -given[1], np.zeros((ROWS, 9, H, K)))
  for h in range(H):
    state = S[:, h]
    for t in range(9):
      found = np.einsum("bkp,bk->bp", state, w[:, t, h])
      state = np.exp(log_a[:, t, h, :, None]) * state + u[:, t, h, :, None] * found[:, None]
      state = state + k[:, t, h, :, None] * v[:, t, h, None]
      np.testing.assert_allclose(y[:, t, h], np.einsum("bk,bkp->bp", q[:, t, h], state), atol=1e-4)
    np.testing.assert_allclose(last[:, h], state, atol=1e-4)


@pytest.mark.parametrize("kind", ["delta", "by channel"])
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_steps_of_0_and_1_and_2_over_block_boundaries(kind, beta):
  """Nothing is written; all of what was there is replaced; it is reflected, and nothing shrinks but by the decay."""
  given = arrays(kind, 131, beta=beta)
  if kind == "by channel":
    q, k, v, w, S, u, log_a = given
    # a channel that keeps all, one that forgets all at times, one in between
    log_a = log_a / 50
    log_a[..., 0], log_a[:, ::7, :, 1] = 0, -np.inf
    given = q, k, v, np.exp(log_a) * k / max(beta, 1), S, u, log_a
  got, want = run("xla", given), run("reference", given)
  assert_close(got, want, 1e-4 if beta == 2 else TOLERANCE["float32"])
  assert all(np.isfinite(z).all() for z in jax.tree.leaves(got))


def test_a_step_of_1_replaces_what_a_key_finds():
  q, k, v, x, S = arrays("delta", 40, beta=1.0)
  y, _ = op(x, k, v, x, S)
  np.testing.assert_allclose(y, v, atol=1e-5)


def test_a_step_of_2_keeps_the_parity_of_ones():
  """An eigenvalue of -1 (Grazzi et al. 2025, arXiv:2411.12537): the sign of the state counts modulo 2."""
  bits = np.random.default_rng(0).integers(0, 2, (1, 200))
  one, zero = np.ones((1, 200, 1, 1), np.float32), np.zeros((1, 200, 1, 1), np.float32)
  y, _ = op(one, 2 * one * bits[..., None, None], zero, one, np.ones((1, 1, 1, 1), np.float32))
  np.testing.assert_array_equal(y[0, :, 0, 0], 1 - 2 * (np.cumsum(bits) % 2))


def test_without_removal_it_is_gated_linear_attention():
  q, k, v, w, S, _, log_a = arrays("by channel", 40)
  got = op(q, k, v, np.zeros_like(w), S, None, log_a)
  assert_close(got, jax.jit(gated_linear_attention)(q, k, v, log_a, S), 1e-5)


def test_one_decay_is_the_same_decay_in_every_row():
  q, k, v, w, S, _, log_a = arrays("gated", 70)
  assert_close(op(q, k, v, w, S, None, np.repeat(log_a, K, -1)), op(q, k, v, w, S, None, log_a), 1e-5)


@pytest.mark.slow
def test_u_is_minus_k_where_it_is_not_given():
  for t in (9, 70):
    q, k, v, w, S, _, log_a = arrays("gated", t)
    got = values_and_gradients(
      lambda q, k, v, w, S, log_a: delta_rule(q, k, v, w, S, -k, log_a), (q, k, v, w, S, log_a)
    )
    want = values_and_gradients(
      lambda q, k, v, w, S, log_a: delta_rule(q, k, v, w, S, None, log_a), (q, k, v, w, S, log_a)
    )
    assert_close(got, want, 1e-5)


@pytest.mark.parametrize("kind", ["gated", "by channel", pytest.param("general", marks=pytest.mark.slow)])
def test_strong_decays_are_forgotten_and_weak_ones_exact(kind):
  """After a decay of e^-170 or 0, those of the next tokens keep all their digits."""
  *given, log_a = arrays(kind, 60)
  log_a = np.where(np.arange(60)[:, None, None] % 4 == 2, np.float32(-170), log_a / 50)
  log_a[:, 41] = -np.inf
  given = *given, log_a
  got = run("xla", given)
  assert_close(got, run("reference", given), 4e-6)
  assert all(np.isfinite(z).all() for z in jax.tree.leaves(got))


@pytest.mark.optimized
def test_the_gradient_keeps_no_state_per_token():
  b, t, h, k, p = 1, 4096, 2, 32, 32
  row, state = (b, t, h, k), (b, h, k, p)
  loss = jax.grad(lambda *z: delta_rule(*z, impl="xla")[0].sum(), argnums=tuple(range(7)))
  shapes = (row, row, (b, t, h, p), row, state, row, row)
  compiled = jax.jit(loss).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile()
  used, states = compiled.memory_analysis().temp_size_in_bytes, 4 * b * t * h * k * p
  assert used < 0.75 * states, f"{used} temporary bytes; all states would be {states}"


def test_decays_are_one_or_one_for_each_row():
  q, k, v, w, S = arrays("delta", 8)
  with pytest.raises(ValueError, match="2 decays for 3 rows"):
    op(q, k, v, w, S, None, np.zeros((ROWS, 8, H, 2), np.float32))
