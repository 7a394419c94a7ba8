"""Attention that forgets: queries and keys with sums of log gates are attention to scores with what stands between."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import cpp
from kernels.attention import attention
from kernels.attention.cpp import SOURCE
from kernels.attention.forgetting import with_sums
from kernels.decays import running_sums
from tests.kernels.compare import draw


@pytest.mark.parametrize("accelerator", [False, True])
@pytest.mark.parametrize(
  "impl, tolerance",
  [
    # which adds up the products of a score in their order, so that close sums have an exact difference
    pytest.param("cpp", 2e-6, marks=pytest.mark.skipif(cpp.why_not(SOURCE) is not None, reason="needs a compiler")),
    ("xla", 0.02),
    ("reference", 0.02),
  ],
)
def test_sums_know_what_stands_between_two_tokens_after_40000(monkeypatch, impl, tolerance, accelerator):
  """Of which a float32 has 0.004, a bfloat16 256. Three heads share keys, and each forgets at a rate of its own."""
  # in parts of bfloat16
  monkeypatch.setattr("kernels.dispatch.multiplies_bfloat16", lambda: accelerator)
  rng, t = np.random.default_rng(0), 100
  q, k, v = (draw(rng, (1, t, heads, 4), "float32") for heads in (3, 1, 1))
  log_f = -rng.exponential(np.array([0.1, 1, 3]), (1, t, 1, 3))
  log_f[:, 0] = -40_000
  y = jax.jit(functools.partial(forgetting, impl=impl))(q, k, v, jnp.asarray(log_f, jnp.float32))
  np.testing.assert_allclose(y, in_float64(q, k, v, log_f), atol=max(tolerance, 0.01 * accelerator))


def test_parts_of_sums_are_exact_in_bfloat16_and_add_up(monkeypatch):
  monkeypatch.setattr("kernels.dispatch.multiplies_bfloat16", lambda: True)
  sums = (jnp.float32(-12345.678) * jnp.arange(1, 9).reshape(1, 2, 2, 2), jnp.full((1, 2, 2, 2), 1e-5))
  zero = jnp.zeros((1, 2, 4, 1))
  q, k = with_sums(zero, zero[:, :, :2], sums, sums, scale=1.0)
  for z, entries, want in ((q, [0, 3, 6], sums[0].reshape(1, 2, 4)), (k, [1, 4, 7], -sums[0][..., 0])):
    np.testing.assert_array_equal(z, z.astype(jnp.bfloat16).astype(jnp.float32))
    got = np.asarray(z, np.float64)[..., entries].sum(axis=-1)
    np.testing.assert_allclose(got, np.asarray(want, np.float64), rtol=2.0**-24)


@pytest.mark.parametrize("impl", [pytest.param("xla", marks=pytest.mark.slow), "reference"])
def test_gradients_of_gates_are_those_in_float64(impl):
  """They are differences of sums over all later queries and keys, which cancel."""
  rng, t = np.random.default_rng(1), 200
  z = [draw(rng, (1, t, heads, 4), "float32") for heads in (3, 1, 1)]
  z.append(-jnp.asarray(rng.exponential(0.1, (1, t, 1, 3)), jnp.float32))
  loss = lambda *z: jnp.sum(jnp.sin(3 * forgetting(*z, impl=impl)))
  got = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(*z)
  with jax.enable_x64(True):
    want = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(*(np.asarray(x, np.float64) for x in z))
  for x, y in zip(got, want):
    np.testing.assert_allclose(x, y, atol=1e-4 * np.abs(y).max())


def forgetting(q, k, v, log_f, impl):
  sums = running_sums(log_f, axis=1)
  q, k = with_sums(q, k, sums, sums, scale=q.shape[3] ** -0.5)
  return attention(q, k, v, scale=1.0, impl=impl)


def in_float64(q, k, v, log_f):
  q, k, v = (np.asarray(z, np.float64) for z in (q, k, v))
  sums, past = np.cumsum(log_f[:, :, 0], axis=1), np.tri(q.shape[1], dtype=bool)
  scores = np.einsum("bthk,bsk->bhts", q, k[:, :, 0]) / 2 + (sums[:, :, None] - sums[:, None]).transpose(0, 3, 1, 2)
  weights = np.exp(np.where(past, scores, -np.inf))
  return np.einsum("bhts,bsp->bthp", weights / weights.sum(axis=-1, keepdims=True), v[:, :, 0])
