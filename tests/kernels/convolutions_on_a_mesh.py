"""Convolutions, lti and attention on four devices, against one: run in a process of its own by test_dispatch.py."""

import jax
import jax.numpy as jnp
import numpy as np

from kernels.attention import attention
from kernels.long_conv import long_conv, xla
from kernels.lti import System, lti
from kernels.short_conv import short_conv
from tests.kernels.compare import QUICK, assert_close

B, T, E, N, C = 4, 40, 4, 3, 16


def cases():
  """Name -> function of arrays with rows, and of arrays without, and those arrays."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  u, x = draw(B, T, E), draw(B, E, N) + 1j * draw(B, E, N)
  reset, lengths = rng.random((B, T)) < 0.1, np.array([T, 0, 20, T])
  position = np.broadcast_to(np.arange(T), (B, T))
  state = lambda *shape: draw(*shape) + 1j * draw(*shape)
  system = System(draw(E, C), state(E, N), state(E, C, N), state(E, N, C), state(E, N))
  heads = draw(B, T, 4, 8), draw(B, T, 2, 8), draw(B, T, 2, 8)
  return {
    "short_conv": (lambda r, k: short_conv(r[0], k, r[1], reset=r[2])[0], (u, draw(B, 3, E), reset), draw(4, E)),
    "long_conv": (lambda r, k: long_conv(r[0], k), (u,), draw(E, T)),
    "long_conv, packed": (lambda r, k: long_conv(r[0], k, reset=r[1]), (u, reset), draw(E, T)),
    "lti": (lambda r, s: lti(r[0], s, r[1], reset=r[2], lengths=r[3])[0], (u, x, reset, lengths), system),
    "attention": (lambda r, _: attention(*r[:3], q_position=r[3], k_position=r[3]), (*heads, position), draw(1)),
  }


def gradients(op, rows, rest):
  arrays, places = [z for z in rows if jnp.issubdtype(z.dtype, jnp.inexact)], rows
  values = lambda arrays, rest: jnp.sin(op([*arrays, *places[len(arrays) :]], rest)).sum()
  return jax.grad(values, argnums=(0, 1))(arrays, rest)


def main():
  xla.FEW_TAPS = 8
  mesh = jax.make_mesh((2, 1, 2), ("data", "sequence", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
  divided, everywhere = (jax.NamedSharding(mesh, jax.P(axis)) for axis in ("data", None))
  for name, (op, rows, rest) in cases().items():
    run = lambda rows, rest, op=op: gradients(op, rows, rest)
    with jax.set_mesh(mesh):
      placed = jax.device_put(rows, divided), jax.device_put(rest, everywhere)
      compiled = jax.jit(run).lower(*placed).compile(QUICK)
      assert " all-gather(" not in compiled.as_text(), f"{name} gathers its rows"
      got = compiled(*placed)
    assert_close(got, jax.jit(run, compiler_options=QUICK)(rows, rest), 2e-5)


if __name__ == "__main__":
  main()
