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
from tests.kernels.compare import assert_close, assert_equals_the_reference, values_and_gradients
from tests.kernels.ops import DECAYING, OPS
from tests.refused import refused

# interpreting a kernel takes seconds; the default suite lowers them
pytestmark = pytest.mark.slow


# one block and several, in one chunk and in several, heads in one program and in several
@pytest.mark.parametrize(
  "t, h, k, p, bonus, masked",
  [
    (11, 1, 3, 5, True, True),
    (11, 1, 3, 5, False, True),
    (21, 3, 5, 7, True, True),
    (37, 2, 128, 128, True, True),
    (32, 4, 64, 64, False, False),
    (1, 2, 4, 4, True, False),
  ],
)
def test_gated_linear_attention_equals_the_reference(t, h, k, p, bonus, masked, monkeypatch, on_tpu):
  monkeypatch.setattr(gla_tpu, "ROWS", 4 if k < 64 else 16)
  monkeypatch.setattr(gla_tpu, "BLOCKS", 2)
  given = OPS["gated_linear_attention" + ", bonus" * bonus].draw(t, h=h, k=k, p=p)
  assert_equals_the_reference(gated_linear_attention, tuple(given.values()), t, masked)


@pytest.mark.parametrize(
  "name", [name for name in DECAYING if name not in ("delta_rule, by channel", "delta_rule, general")]
)
def test_strong_decays_are_forgotten_and_weak_ones_exact_on_tpus(name, on_tpu):
  arrays = tuple(OPS[name].forgetting().values())
  run = lambda impl: values_and_gradients(functools.partial(OPS[name].run, impl=impl), arrays)
  assert_close(run("pallas_tpu"), run("reference"), DECAYING[name])


# one chunk and several, with decays and without
@pytest.mark.parametrize(
  "t, h, k, p, gated, masked",
  [(21, 1, 3, 5, True, True), (11, 2, 4, 4, False, True), (40, 1, 128, 128, True, False), (1, 2, 4, 4, False, False)],
)
def test_delta_rule_equals_the_reference(t, h, k, p, gated, masked, monkeypatch, on_tpu):
  monkeypatch.setattr(delta_rule_tpu, "TOKENS", 16)
  op = OPS["delta_rule" + ", gated" * gated]
  assert_equals_the_reference(op.run, tuple(op.draw(t, h=h, k=k, p=p).values()), t, masked)


@pytest.mark.parametrize("step", [1, 2])
def test_the_inverse_of_a_chunk_is_exact_for_equal_keys(step):
  """64 tokens that all find and write the same: powers of the matrix reach 10^27, its inverse has none above 2."""
  lower = step * np.tri(64, k=-1)
  got = jax.jit(delta_rule_tpu._inverse)(jnp.asarray(lower, jnp.float32))
  np.testing.assert_allclose(got, np.linalg.inv(np.eye(64) + lower), atol=1e-6)


def test_delta_rule_on_tpus_says_what_it_cannot_run(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  q, k, v, w, S, log_a = map(jnp.asarray, OPS["delta_rule, gated"].draw(8).values())
  refused("pallas_tpu: what is found is written at u", delta_rule, q, k, v, w, S, k, log_a, impl="pallas_tpu")
  each_row = jnp.repeat(log_a, 3, -1)
  refused("pallas_tpu: there is a decay for each row", delta_rule, q, k, v, w, S, None, each_row, impl="pallas_tpu")
