"""Kernels for TPUs without one, of ops whose heads have a matrix as state; see test_pallas_tpu.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.delta_rule import delta_rule
from kernels.delta_rule import pallas_tpu as delta_rule_tpu
from kernels.gated_linear_attention import gated_linear_attention
from kernels.gated_linear_attention import pallas_tpu as gla_tpu
from tests.kernels.compare import assert_close, assert_equals_the_reference, draw, values_and_gradients

# interpreting a kernel takes seconds; the default suite lowers them
pytestmark = pytest.mark.slow


def gla_arrays(t, h, k, p, bonus):
  """Decays from nearly none to 1e-2 a token."""
  rng = np.random.default_rng(t)
  q, key = draw(rng, (2, 2, t, h, k), "float32")
  log_a = -(10.0 ** rng.uniform(-3, 0.7, (2, t, h, k))).astype("float32")
  given = q, key, draw(rng, (2, t, h, p), "float32"), log_a, draw(rng, (2, h, k, p), "float32")
  return (*given, draw(rng, (h, k), "float32")) if bonus else given


# one block and several, in one chunk and in several, heads in one program and in several
@pytest.mark.parametrize(
  "t, h, k, p, bonus, masked",
  [
    (11, 1, 3, 5, True, True),
    (11, 1, 3, 5, False, True),
    pytest.param(21, 3, 5, 7, True, True, marks=pytest.mark.slow),
    pytest.param(37, 2, 128, 128, True, True, marks=pytest.mark.slow),
    pytest.param(32, 4, 64, 64, False, False, marks=pytest.mark.slow),
    pytest.param(1, 2, 4, 4, True, False, marks=pytest.mark.slow),
  ],
)
def test_gated_linear_attention_equals_the_reference(t, h, k, p, bonus, masked, monkeypatch, on_tpu):
  monkeypatch.setattr(gla_tpu, "ROWS", 4 if k < 64 else 16)
  monkeypatch.setattr(gla_tpu, "BLOCKS", 2)
  assert_equals_the_reference(gated_linear_attention, gla_arrays(t, h, k, p, bonus), t, masked)


@pytest.mark.slow
@pytest.mark.parametrize("bonus", [False, True])
def test_gated_linear_attention_on_tpus_forgets_strong_decays_and_keeps_weak_ones_exact(bonus, on_tpu):
  """A decay of 0, and after one of e^-170 those of the next tokens with all digits; a channel without decay."""
  q, k, v, log_a, *rest = gla_arrays(60, 1, 4, 4, bonus)
  log_a = np.where(np.arange(60)[:, None, None] % 4 == 2, np.float32(-170), log_a / 50)
  log_a[:, 41, :, 1] = -np.inf
  log_a[:, :, :, 2] = 0
  given = q, k, v, log_a, *rest
  want = values_and_gradients(functools.partial(gated_linear_attention, impl="reference"), given)
  assert_close(values_and_gradients(functools.partial(gated_linear_attention, impl="pallas_tpu"), given), want, 2e-6)


def delta_arrays(t, h, k, p, gated, beta=None):
  """Keys of length 1, steps in [0, 2], and decays from nearly none to 1e-2 a token."""
  rng = np.random.default_rng(t)
  q, x = draw(rng, (2, 2, t, h, k), "float32")
  x /= np.linalg.norm(x, axis=-1, keepdims=True)
  steps = rng.uniform(0, 2, (2, t, h, 1)) if beta is None else beta
  stored = (steps * x).astype("float32")
  v, S = draw(rng, (2, t, h, p), "float32"), draw(rng, (2, h, k, p), "float32")
  log_a = -(10.0 ** rng.uniform(-3, 0.7, (2, t, h, 1))).astype("float32")
  return (q, stored, v, np.exp(log_a) * x, S, None, log_a) if gated else (q, stored, v, x, S)


# one chunk and several, with decays and without
@pytest.mark.parametrize(
  "t, h, k, p, gated, masked",
  [
    (21, 1, 3, 5, True, True),
    pytest.param(11, 2, 4, 4, False, True, marks=pytest.mark.slow),
    pytest.param(40, 1, 128, 128, True, False, marks=pytest.mark.slow),
    pytest.param(1, 2, 4, 4, False, False, marks=pytest.mark.slow),
  ],
)
def test_delta_rule_equals_the_reference(t, h, k, p, gated, masked, monkeypatch, on_tpu):
  monkeypatch.setattr(delta_rule_tpu, "TOKENS", 16)
  assert_equals_the_reference(delta_rule, delta_arrays(t, h, k, p, gated), t, masked)


@pytest.mark.slow
def test_delta_rule_on_tpus_forgets_strong_decays_and_keeps_weak_ones_exact(on_tpu):
  """A decay of 0, and after one of e^-170 those of the next tokens with all digits."""
  q, k, v, x, S, _, log_a = delta_arrays(60, 2, 4, 4, True)
  log_a = np.where(np.arange(60)[:, None, None] % 4 == 2, np.float32(-170), log_a / 50)
  log_a[:, 41] = -np.inf
  given = q, k, v, x, S, None, log_a
  want = values_and_gradients(functools.partial(delta_rule, impl="reference"), given)
  assert_close(values_and_gradients(functools.partial(delta_rule, impl="pallas_tpu"), given), want, 4e-6)


@pytest.mark.parametrize("step", [1, 2])
def test_the_inverse_of_a_chunk_is_exact_for_equal_keys(step):
  """64 tokens that all find and write the same: powers of the matrix reach 10^27, its inverse has none above 2."""
  lower = step * np.tri(64, k=-1)
  got = jax.jit(delta_rule_tpu._inverse)(jnp.asarray(lower, jnp.float32))
  np.testing.assert_allclose(got, np.linalg.inv(np.eye(64) + lower), atol=1e-6)


def test_delta_rule_on_tpus_says_what_it_cannot_run(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  q, k, v, w, S, _, log_a = map(lambda z: None if z is None else jnp.asarray(z), delta_arrays(8, 2, 3, 4, True))
  with pytest.raises(ValueError, match="pallas_tpu: what is found is written at u"):
    delta_rule(q, k, v, w, S, k, log_a, impl="pallas_tpu")
  with pytest.raises(ValueError, match="pallas_tpu: there is a decay for each row of the state"):
    delta_rule(q, k, v, w, S, None, jnp.repeat(log_a, 3, -1), impl="pallas_tpu")
