"""The scans on four devices, against one: run in a process of its own by test_dispatch.py."""

import functools

import jax
import numpy as np

from kernels import cpp, dispatch
from kernels.delta_rule import delta_rule
from kernels.experts import experts
from kernels.gated_linear_attention import gated_linear_attention
from kernels.linear_scan import cpp as linear_scan_cpp
from kernels.linear_scan import linear_scan
from kernels.selective_scan import cpp as selective_scan_cpp
from kernels.selective_scan import selective_scan, xla
from kernels.selective_step import cpp as selective_step_cpp
from kernels.selective_step import selective_step
from kernels.ssd import ssd
from scripts.benchmarks.steps import selective_arrays
from tests.kernels.compare import QUICK, assert_close, values_and_gradients

AXES = ("b t e", "b t e", "e n", "b t g n", "b t g n", "b e n", "b t"), ("b t e", "b e n")


def arrays(b, t=20, e=4, g=2, n=3):
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  return draw(b, t, e), abs(draw(b, t, e)) / 3, -abs(draw(e, n)), draw(b, t, g, n), draw(b, t, g, n), draw(b, e, n)


def gradients(op, y_bar, last_bar, *arrays):
  return jax.vjp(op, *arrays)[1]((y_bar, last_bar))


def the_compiler_divides_the_batch(mesh):
  x, dt, A, B, C, h = arrays(4)
  rows, everywhere = (jax.NamedSharding(mesh, jax.P(axis)) for axis in ("data", None))
  heads = x[..., None], -dt, h[..., None]  # of one channel
  S = B[:, : B.shape[-1]].swapaxes(1, 2)  # as many rows and columns as a head has features
  cases = {
    linear_scan: (x, ("xla", "associative"), (dt, x, h[..., 0])),
    selective_scan: (x, ("xla", "associative"), (x, dt, A, B, C, h)),
    ssd: (heads[0], ("xla",), (C, B, *heads)),
    gated_linear_attention: (C, ("xla",), (B, C, C, -abs(B), S)),
    delta_rule: (C, ("xla",), (B, C / 4, C, B / 4, S)),
  }
  for op, (y_bar, impls, arguments) in cases.items():
    for impl in impls:
      given = y_bar, arguments[-1], *arguments
      run = functools.partial(gradients, functools.partial(op, impl=impl))
      with jax.set_mesh(mesh):
        placed = tuple(jax.device_put(z, everywhere if z is A else rows) for z in given)
        divided = jax.jit(run).lower(*placed).compile(QUICK)
        assert "all-gather" not in divided.as_text(), f"{op.__name__} {impl} gathers its inputs"
        got = divided(*placed)
      assert_close(got, jax.jit(run, compiler_options=QUICK)(*given), 1e-5)


def dispatch_divides_an_implementation(mesh):
  for b in (4, 1):
    given = arrays(b)
    op = functools.partial(xla.selective_scan, disc="euler")
    whole, divided = (lambda *z, f=f: f(*z, None) for f in (op, dispatch.shard(op, *AXES)))
    want = values_and_gradients(whole, given)
    assert_close(values_and_gradients(divided, given), want, 0)
    with jax.set_mesh(mesh):
      got = values_and_gradients(divided, given)
      assert_close(got, want, 1e-5)
      (_, last), _ = got
      expected = jax.P(("data",) if b > 1 else None, ("tensor",), None)
      assert last.sharding.is_equivalent_to(jax.NamedSharding(mesh, expected), 3), f"state on {last.sharding}"


def a_kernel_in_cpp_is_divided(mesh, kernel, op, given, state):
  """`state` is the shape that each device has of it."""
  if cpp.why_not(kernel.SOURCE) is None:
    op = functools.partial(op, impl="cpp")
    want = values_and_gradients(op, given)
    with jax.set_mesh(mesh):
      assert_close(values_and_gradients(op, given), want, 1e-5)
      compiled = jax.jit(op).lower(*given).compile(QUICK).as_text()
    assert state in compiled, "every device runs the whole"


def scanned(b, t, n):
  """Arguments of `linear_scan`, of complex numbers."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
  return draw(n) / 4, draw(b, t, n), draw(b, n)


def experts_are_divided():
  """Tokens by batch and time, experts over tensor; each device multiplies no rows but its own."""
  mesh = jax.make_mesh((1, 2, 2), ("data", "sequence", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  x, weights, W_in, W_out = draw(3, 8, 5), draw(3, 8, 2), draw(4, 5, 7), draw(4, 7, 5)
  chosen = jax.numpy.asarray(rng.integers(0, 5, (3, 8, 2)))  # the last is none
  op = lambda *z: (experts(z[0], chosen, *z[1:], activation=jax.nn.silu, impl="chunks"),)
  want = values_and_gradients(op, (x, weights, W_in, W_out))
  with jax.set_mesh(mesh):
    assert_close(values_and_gradients(op, (x, weights, W_in, W_out)), want, 1e-5)
    compiled = jax.jit(op).lower(x, weights, W_in, W_out).compile(QUICK).as_text()
  assert "f32[2,5,7]" in compiled, "every device has all experts"
  assert "f32[24,5]" in compiled, "every device has all tokens"  # 3 rows of 4 tokens with 2 choices


if __name__ == "__main__":
  mesh = jax.make_mesh((2, 1, 2), ("data", "sequence", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
  the_compiler_divides_the_batch(mesh)
  dispatch_divides_an_implementation(mesh)
  a_kernel_in_cpp_is_divided(mesh, selective_scan_cpp, selective_scan, arrays(4), "f32[2,20,2]")
  a_kernel_in_cpp_is_divided(mesh, selective_step_cpp, selective_step, selective_arrays(4, 4, 2, 3), "f32[2,2,3]")
  a_kernel_in_cpp_is_divided(mesh, linear_scan_cpp, linear_scan, scanned(4, 6, 8), "f32[2,6,4]")
  experts_are_divided()
