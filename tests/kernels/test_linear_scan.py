import functools
import math
import re

import jax
import numpy as np
import pytest

from kernels.linear_scan import IMPLS, linear_scan
from tests.kernels.compare import QUICK, anywhere, draw

B, N = 2, 3
ALL = anywhere(IMPLS)
FAST = [name for name in ALL if name != "reference"]
op = jax.jit(linear_scan, static_argnames="impl", compiler_options=QUICK)


def arrays(t, decay, kind, dtype="float32"):
  rng = np.random.default_rng(t)
  dtype = np.result_type(dtype, np.complex64 if kind == "complex" else np.float32)
  a = rng.uniform(0.5, 1, (B, t, N) if decay == "varying" else N)
  a = (a * np.exp(1j * rng.uniform(-3, 3, a.shape)) if kind == "complex" else a).astype(dtype)
  return a, draw(rng, (B, t, N), dtype), draw(rng, (B, N), dtype)


def test_the_definition_is_the_recurrence():
  a, x, h = arrays(8, "varying", "complex")
  y, last = op(a, x, h, impl="reference")
  state = h
  for t in range(8):
    state = a[:, t] * state + x[:, t]
    np.testing.assert_allclose(y[:, t], state, rtol=1e-5)
  np.testing.assert_array_equal(last, y[:, -1])


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
