import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.gated_linear_attention import gated_linear_attention
from kernels.ssd import ssd
from tests.kernels.compare import QUICK, assert_close, values_and_gradients
from tests.kernels.ops import OPS

H, K = 4, 3
op = jax.jit(gated_linear_attention, static_argnames="impl", compiler_options=QUICK)


def arrays(t, bonus=False):
  return tuple(OPS["gated_linear_attention, bonus" if bonus else "gated_linear_attention"].draw(t).values())


def run(impl, given):
  return values_and_gradients(functools.partial(gated_linear_attention, impl=impl), given)


@pytest.mark.parametrize("bonus", [False, True])
def test_the_definition_is_the_recurrence(bonus):
  q, k, v, log_a, S, *rest = arrays(9, bonus)
  y, last = op(q, k, v, log_a, S, *rest, impl="reference")
  for h in range(H):
    state = S[:, h]
    for t in range(9):
      new = k[:, t, h, :, None] * v[:, t, h, None]
      after = np.exp(log_a[:, t, h, :, None]) * state + new
      read = state + rest[0][h, :, None] * new if bonus else after
      np.testing.assert_allclose(y[:, t, h], np.einsum("bk,bkp->bp", q[:, t, h], read), atol=1e-5)
      state = after
    np.testing.assert_allclose(last[:, h], state, atol=1e-5)


def test_equals_ssd_where_a_head_has_one_decay():
  q, k, v, log_a, S = arrays(40)
  one = log_a[..., 0]
  got = op(q, k, v, np.repeat(one[..., None], K, -1), S)
  assert_close(got, jax.jit(ssd)(q, k, v, one, S), 1e-5)


@pytest.mark.parametrize("bonus", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_strong_decays_are_forgotten_and_weak_ones_exact(bonus):
  """A decay of 0 clears its channel; after one of e^-170, the next tokens' keep all digits; without decay all stays."""
  q, k, v, log_a, S, *u = arrays(60, bonus)
  log_a = np.where(np.arange(60)[:, None, None] % 4 == 2, np.float32(-170), log_a / 50)
  log_a[:, 41, :, 1] = -np.inf
  log_a[:, :, :, 2] = 0
  given = q, k, v, log_a, S, *u
  got = run("xla", given)
  assert_close(got, run("reference", given), 2e-6)
  assert all(np.isfinite(z).all() for z in jax.tree.leaves(got))


@pytest.mark.optimized
def test_the_gradient_keeps_no_state_per_token():
  b, t, h, k, p = 1, 4096, 2, 32, 32
  shapes = (b, t, h, k), (b, t, h, k), (b, t, h, p), (b, t, h, k), (b, h, k, p)
  loss = jax.grad(lambda *z: gated_linear_attention(*z, impl="xla")[0].sum(), argnums=tuple(range(5)))
  compiled = jax.jit(loss).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile()
  used, states = compiled.memory_analysis().temp_size_in_bytes, 4 * b * t * h * k * p
  assert used < 0.75 * states, f"{used} temporary bytes; all states would be {states}"
