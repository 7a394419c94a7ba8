"""The recurrence as upstream S5 computes it: complex products, and one associative scan over the whole sequence."""

import jax
import jax.numpy as jnp

from scripts.benchmarks.case import Timed, compiled, gradients


def recurrence(mode: str, *, batch: int, length: int, width: int, state: int) -> Timed:
  """Prepares `form` with respect to all its arguments, on random ones."""
  args = arguments(batch=batch, length=length, width=width, state=state)
  return (compiled if mode == "forward" else gradients)(form, *args)


def arguments(*, batch: int, length: int, width: int, state: int) -> tuple[jax.Array, ...]:
  """Draws the real and imaginary parts of A, B and C, and inputs."""
  keys = jax.random.split(jax.random.key(0), 4)
  a = jnp.exp(0.01 * jax.lax.complex(-0.5 * jnp.ones(state), jax.random.uniform(keys[0], (state,), maxval=3.0)))
  B = jax.random.normal(keys[1], (2, width, state)) / width**0.5
  C = jax.random.normal(keys[2], (2, state, width)) / state**0.5
  return a.real, a.imag, B, C, jax.random.normal(keys[3], (batch, length, width))


def form(a_re, a_im, B, C, u):
  """Computes Re(C h) with h_t = a h_{t-1} + B u_t, one sequence at a time."""
  A = jnp.broadcast_to(jax.lax.complex(a_re, a_im), (u.shape[1], *a_re.shape))
  B, C = jax.lax.complex(B[0], B[1]), jax.lax.complex(C[0], C[1])

  def one(u):
    _, h = jax.lax.associative_scan(lambda p, q: (q[0] * p[0], q[0] * p[1] + q[1]), (A, u.astype(B.dtype) @ B))
    return (h @ C).real

  return jax.vmap(one)(u)
