import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.linear_scan import IMPLS, associative, linear_scan
from tests.kernels.compare import QUICK, TOLERANCE, anywhere, assert_close, draw, masks, spoil, values_and_gradients

B, N = 2, 3
ALL = anywhere(IMPLS)
FAST = [name for name in ALL if name != "reference"]
# decay varying or constant, complex or real, with the masks or without
CASES = [
  ("varying", "real", True),
  ("constant", "complex", True),
  ("varying", "complex", False),
  ("constant", "real", False),
]
op = jax.jit(linear_scan, static_argnames="impl", compiler_options=QUICK)


def arrays(t, decay, kind, dtype="float32"):
  rng = np.random.default_rng(t)
  dtype = np.result_type(dtype, np.complex64 if kind == "complex" else np.float32)
  a = rng.uniform(0.5, 1, (B, t, N) if decay == "varying" else N)
  a = (a * np.exp(1j * rng.uniform(-3, 3, a.shape)) if kind == "complex" else a).astype(dtype)
  return a, draw(rng, (B, t, N), dtype), draw(rng, (B, N), dtype)


@functools.cache
def expected(t, decay, kind, masked, dtype):
  reference = functools.partial(linear_scan, impl="reference")
  return values_and_gradients(reference, arrays(t, decay, kind, dtype), **masks(t) if masked else {})


@pytest.mark.parametrize("t, dtype", [(1, "float32"), (63, "float32"), (63, "float64"), (100, "float32")])
@pytest.mark.parametrize("decay, kind, masked", CASES)
@pytest.mark.parametrize("impl", FAST)
def test_implementations_equal_the_reference(impl, t, decay, kind, masked, dtype, monkeypatch):
  monkeypatch.setattr(associative, "CHUNK", 16)
  with jax.enable_x64(dtype == "float64"):
    given, where = arrays(t, decay, kind, dtype), masks(t) if masked else {}
    if masked:
      given = tuple(spoil(where["lengths"], z) if z.ndim == 3 else z for z in given)
    got = values_and_gradients(functools.partial(linear_scan, impl=impl), given, **where)
    assert_close(got, expected(t, decay, kind, masked, dtype), TOLERANCE[dtype])


def test_the_definition_is_the_recurrence():
  a, x, h = arrays(8, "varying", "complex")
  y, last = op(a, x, h, impl="reference")
  state = h
  for t in range(8):
    state = a[:, t] * state + x[:, t]
    np.testing.assert_allclose(y[:, t], state, rtol=1e-5)
  np.testing.assert_array_equal(last, y[:, -1])


@pytest.mark.parametrize("impl", ALL)
def test_lengths_equal_each_row_alone(impl):
  a, x, h = arrays(8, "constant", "complex")
  # The document that would start past the lengths starts nothing.
  y, last = op(a, x, h, reset=np.arange(8)[None].repeat(B, 0) == 6, lengths=np.array([0, 4]), impl=impl)
  np.testing.assert_array_equal(last[0], h[0])
  assert not y[0].any(), "a row of length 0 has outputs"
  assert not y[1, 4:].any(), "outputs past the length"
  alone, alone_last = op(a, x[:, :4], h, impl=impl)
  np.testing.assert_allclose(y[1, :4], alone[1], rtol=1e-5)
  np.testing.assert_allclose(last[1], alone_last[1], rtol=1e-5)


def test_no_tokens_leave_the_state_alone():
  a, x, h = arrays(8, "constant", "complex")
  y, last = op(a, x[:, :0], h)
  assert y.shape == (B, 0, N)
  np.testing.assert_array_equal(last, h)


@pytest.mark.parametrize("impl", ALL)
def test_reset_separates_documents(impl):
  a, x, h = arrays(8, "constant", "complex")
  y, last = op(a, x, h, reset=np.arange(8)[None].repeat(B, 0) == 4, impl=impl)
  first, _ = op(a, x[:, :4], h, impl=impl)
  second, second_last = op(a, x[:, 4:], np.zeros_like(h), impl=impl)
  np.testing.assert_allclose(y, np.concatenate([first, second], axis=1), rtol=1e-5)
  np.testing.assert_allclose(last, second_last, rtol=1e-5)


@pytest.mark.parametrize("impl", ALL)
def test_bfloat16_comes_back_with_a_float32_state(impl):
  a, x, h = arrays(8, "varying", "real")
  y, last = op(a.astype(jnp.bfloat16), x.astype(jnp.bfloat16), h, impl=impl)
  assert (y.dtype, last.dtype) == (jnp.bfloat16, jnp.float32)
  exact, _ = op(a, x, h)
  np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=0.1)


def test_a_real_decay_meets_complex_inputs():
  a, _, _ = arrays(8, "varying", "real")
  _, x, h = arrays(8, "varying", "complex")
  y, _ = op(a, x, h)
  np.testing.assert_allclose(y, op(a.astype(x.dtype), x, h, impl="reference")[0], rtol=1e-5)


@pytest.mark.parametrize("impl", FAST)
def test_a_constant_decay_is_not_repeated_over_time(impl):
  a, x, h = arrays(600, "constant", "real")
  gradients = lambda a, x, h, *bars: jax.vjp(functools.partial(linear_scan, impl=impl), a, x, h)[1](bars)
  program = str(jax.make_jaxpr(gradients)(a, x, h, x, h))
  repeated = re.findall(r"\[[\d,]*\] = broadcast_in_dim", program)
  sizes = [math.prod(map(int, re.findall(r"\d+", shape))) for shape in repeated]
  assert max(sizes, default=0) < 600 * N, f"largest array made by repetition: {max(sizes)}"
