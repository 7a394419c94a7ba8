import functools

import jax
import numpy as np
import pytest

from kernels.delta_rule import delta_rule
from kernels.gated_linear_attention import gated_linear_attention
from tests.kernels.compare import QUICK, TOLERANCE, assert_close, values_and_gradients
from tests.kernels.ops import OPS

H, K = 4, 3
op = jax.jit(delta_rule, static_argnames="impl", compiler_options=QUICK)


def arrays(kind, t, beta=None):
  """Returns q, k, v, w, S, and u and log_a where there are decays; k is w times a step, `beta` if it is given."""
  z = OPS[kind].draw(t)
  if beta is not None:
    z["k"] = np.float32(beta) * z["w"]
  given = z["q"], z["k"], z["v"], z["w"], z["S"]
  return (*given, z.get("u"), z["log_a"]) if "log_a" in z else given


def run(impl, given):
  return values_and_gradients(functools.partial(delta_rule, impl=impl), given)


@pytest.mark.parametrize("kind", ["delta_rule", "delta_rule, general"])
def test_the_definition_is_the_recurrence(kind):
  given = arrays(kind, 9)
  y, last = op(*given, impl="reference")
  q, k, v, w, S, u, log_a = given if len(given) == 7 else (*given, -given[1], np.zeros((2, 9, H, K)))
  for h in range(H):
    state = S[:, h]
    for t in range(9):
      found = np.einsum("bkp,bk->bp", state, w[:, t, h])
      state = np.exp(log_a[:, t, h, :, None]) * state + u[:, t, h, :, None] * found[:, None]
      state = state + k[:, t, h, :, None] * v[:, t, h, None]
      np.testing.assert_allclose(y[:, t, h], np.einsum("bk,bkp->bp", q[:, t, h], state), atol=1e-4)
    np.testing.assert_allclose(last[:, h], state, atol=1e-4)


@pytest.mark.parametrize("kind", ["delta_rule", "delta_rule, by channel"])
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_steps_of_0_and_1_and_2_over_block_boundaries(kind, beta):
  """Nothing is written; all of what was there is replaced; it is reflected, and nothing shrinks but by the decay."""
  given = arrays(kind, 131, beta=beta)
  if kind == "delta_rule, by channel":
    q, k, v, w, S, u, log_a = given
    # a channel that keeps all, one that forgets all at times, one in between
    log_a = log_a / 50
    log_a[..., 0], log_a[:, ::7, :, 1] = 0, -np.inf
    given = q, k, v, np.exp(log_a) * k / max(beta, 1), S, u, log_a
  got, want = run("xla", given), run("reference", given)
  assert_close(got, want, 1e-4 if beta == 2 else TOLERANCE["float32"])
  assert all(np.isfinite(z).all() for z in jax.tree.leaves(got))


def test_a_step_of_1_replaces_what_a_key_finds():
  q, k, v, x, S = arrays("delta_rule", 40, beta=1.0)
  y, _ = op(x, k, v, x, S)
  np.testing.assert_allclose(y, v, atol=1e-5)


def test_a_step_of_2_keeps_the_parity_of_ones():
  """An eigenvalue of -1 (Grazzi et al. 2025, arXiv:2411.12537): the sign of the state counts modulo 2."""
  bits = np.random.default_rng(0).integers(0, 2, (1, 200))
  one, zero = np.ones((1, 200, 1, 1), np.float32), np.zeros((1, 200, 1, 1), np.float32)
  y, _ = op(one, 2 * one * bits[..., None, None], zero, one, np.ones((1, 1, 1, 1), np.float32))
  np.testing.assert_array_equal(y[0, :, 0, 0], 1 - 2 * (np.cumsum(bits) % 2))


def test_without_removal_it_is_gated_linear_attention():
  q, k, v, w, S, _, log_a = arrays("delta_rule, by channel", 40)
  got = op(q, k, v, np.zeros_like(w), S, None, log_a)
  assert_close(got, jax.jit(gated_linear_attention)(q, k, v, log_a, S), 1e-5)


def test_one_decay_is_the_same_decay_in_every_row():
  q, k, v, w, S, _, log_a = arrays("delta_rule, gated", 70)
  assert_close(op(q, k, v, w, S, None, np.repeat(log_a, K, -1)), op(q, k, v, w, S, None, log_a), 1e-5)


@pytest.mark.slow
def test_u_is_minus_k_where_it_is_not_given():
  for t in (9, 70):
    q, k, v, w, S, _, log_a = arrays("delta_rule, gated", t)
    got = values_and_gradients(
      lambda q, k, v, w, S, log_a: delta_rule(q, k, v, w, S, -k, log_a), (q, k, v, w, S, log_a)
    )
    want = values_and_gradients(
      lambda q, k, v, w, S, log_a: delta_rule(q, k, v, w, S, None, log_a), (q, k, v, w, S, log_a)
    )
    assert_close(got, want, 1e-5)


def test_decays_are_one_or_one_for_each_row():
  q, k, v, w, S = arrays("delta_rule", 8)
  with pytest.raises(ValueError, match="2 decays for 3 rows"):
    op(q, k, v, w, S, None, np.zeros((2, 8, H, 2), np.float32))
