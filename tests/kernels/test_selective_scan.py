import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.selective_scan import IMPLS, fused, selective_scan, xla
from tests.kernels.compare import DIGIT, QUICK, anywhere, assert_close, draw, values_and_gradients
from tests.refused import refused

ROWS, E, N = 2, 4, 3
FAST = [name for name in anywhere(IMPLS) if name != "reference"]
op = jax.jit(selective_scan, static_argnames=("impl", "disc", "softplus"), compiler_options=QUICK)


def arrays(t, groups=1, dtype="float32", kind="real"):
  rng = np.random.default_rng(t)
  x, dt = draw(rng, (ROWS, t, E), dtype), rng.uniform(0.01, 0.5, (ROWS, t, E)).astype(dtype)
  dtype = np.result_type(dtype, np.complex64 if kind == "complex" else np.float32)
  A = -rng.uniform(0.5, 4, (E, N)) + (1j * rng.uniform(-9, 9, (E, N)) if kind == "complex" else 0)
  return x, dt, A.astype(dtype), *draw(rng, (2, ROWS, t, groups, N), dtype), draw(rng, (ROWS, E, N), dtype)


def with_skip_and_gate(t, groups=1, dtype="float32", kind="real"):
  """Steps before softplus, and D and z."""
  x, dt, *rest = arrays(t, groups, dtype, kind)
  rng = np.random.default_rng(t + 1)
  return x, np.log(np.expm1(dt)), *rest, draw(rng, E, dtype), draw(rng, x.shape, dtype)


@pytest.mark.parametrize("kind, disc", [("real", "euler"), ("real", "zoh"), ("complex", "euler")])
def test_the_definition_is_the_recurrence(kind, disc):
  x, dt, A, B, C, h = arrays(9, 2, kind=kind)
  y, last = op(x, dt, A, B, C, h, impl="reference", disc=disc)
  for e in range(E):
    B_e, C_e, state = B[:, :, e // 2], C[:, :, e // 2], h[:, e]
    for t in range(9):
      now = dt[:, t, e, None]
      factor = now if disc == "euler" else (np.exp(now * A[e]) - 1) / A[e]
      state = np.exp(now * A[e]) * state + factor * x[:, t, e, None] * B_e[:, t]
      np.testing.assert_allclose(y[:, t, e], (C_e[:, t] * state).sum(-1).real, atol=2e-5)
    np.testing.assert_allclose(last[:, e], state, atol=2e-5)


@pytest.mark.parametrize("left_out, dtype", [("", "float32"), ("D", "float32"), ("z", "float32"), ("", "bfloat16")])
def test_softplus_skip_and_gate_stand_around_the_recurrence(left_out, dtype):
  def written_out(x, dt, A, B, C, h, D, z):
    wide = lambda m: m.astype("float32")
    y, last = selective_scan(wide(x), jnp.log1p(jnp.exp(wide(dt))), A, B, C, h, impl="reference")
    y = y if D is None else y + D * wide(x)
    return (y if z is None else y * wide(z) / (1 + jnp.exp(-wide(z)))).astype(dtype), last

  x, dt, *rest, D, z = with_skip_and_gate(9)
  x, dt, z = (jnp.asarray(m, dtype) for m in (x, dt, z))
  given = x, dt, *rest, None if left_out == "D" else D, None if left_out == "z" else z
  got = values_and_gradients(functools.partial(selective_scan, softplus=True), given)
  assert_close(got, values_and_gradients(written_out, given), 1e-5, narrow=DIGIT)


def test_softplus_in_kernels_is_exact_to_the_last_digits():
  x = np.concatenate([np.linspace(-80, 80, 4001), np.linspace(-2, 2, 401), [-np.inf]]).astype("float32")
  want = np.logaddexp(x.astype("float64"), 0)
  off = np.abs(np.asarray(jax.jit(fused.softplus)(x)) - want)
  assert (off <= 2.0**-21 * want).all(), (off / want)[:-1].max()


def test_an_implementation_says_what_it_cannot_run():
  refused("xla: disc='zoh'; it knows 'euler' alone", lambda: op(*arrays(8), disc="zoh", impl="xla"))
  refused("xla: the states are complex", lambda: op(*arrays(8, kind="complex"), impl="xla"))
  refused(r"disc='tustin'; choose from \['euler', 'zoh'\]", lambda: op(*arrays(8), disc="tustin"))


def test_groups_must_divide_the_channels():
  refused("4 channels in 3 groups", lambda: op(*arrays(8, groups=3)))


def test_chunks_are_shorter_than_the_tested_lengths():
  assert xla.CHUNK < 63, "or the loop over chunks goes untested"
