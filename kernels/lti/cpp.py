"""`lti` with a diagonal A on CPUs in C++ (cpp.cc), built when first used: values and gradients in float32.

It runs the recurrence from A, C A, B and the first tap, as the definition does, so that gradients reach these alone and
not the powers of A. Once a chunk it corrects the state by a power that was not made of a rounded A. For the gradient,
forward keeps the state before each chunk; backward makes those of a chunk again.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from kernels import cpp, dispatch, inputs, kept_states
from kernels.lti.system import FAR

SOURCE = Path(__file__).with_suffix(".cc")
FORWARD, BACKWARD = cpp.handlers(SOURCE)
AXES = ("b t e", "z n e", "z n e", "z n e", "e", "z n e", "b z n e", "b t", "b t")


def why_not(u, system, *_) -> str | None:
  """Returns why this kernel cannot run these arguments, or None."""
  if system.A.ndim == 3:
    return "its A is dense"
  return cpp.why_not(SOURCE, u, system.K)


def by_token(u: Float[Array, "b t e"], A: Complex[Array, "e n"]) -> bool:
  """Returns whether "auto" takes this kernel: then a system of one token and A^FAR is all that `lti` needs."""
  return A.dtype == jnp.complex64 and dispatch.prefer("cpp", "fft", "lags") == "cpp" and not cpp.why_not(SOURCE, u)


def lti(u, system, x, reset, lengths):
  """Computes `reference.lti`."""
  valid = None if lengths is None else inputs.valid(lengths, u.shape[1])
  chunk, power = (system.O.shape[1], system.P) if system.far is None else (FAR, system.far)
  A, B, CA, P = (_planes(z.T) for z in (system.A, system.I[..., -1], system.O[:, 0], power))
  scan = dispatch.shard(_scan(chunk), AXES, ("b t e", "b z n e"))
  y, last = scan(u, A, B, CA, system.K[:, 0], P, _planes(x.swapaxes(1, 2), axis=1), reset, valid)
  last = last.swapaxes(2, 3)
  return y, last[:, 0] if jnp.isrealobj(x) else jax.lax.complex(last[:, 0], last[:, 1])


def _planes(z, axis=0):
  """Returns the real and the imaginary part."""
  return jnp.stack([z.real, z.imag], axis)


@functools.cache
def _scan(chunk):
  run, backward = (functools.partial(each, chunk=chunk) for each in (_run, _backward))
  return kept_states.differentiable(run, backward, state=6)


def _run(u, A, B, C, D, P, x, reset, valid, *, chunk, save):
  """Returns all y, the last state, and if `save` the states before each chunk, else none."""
  b, t, _ = u.shape
  shapes = (u.shape, x.shape, (b, -(-t // chunk) if save else 0, *x.shape[1:]))
  call = cpp.call(FORWARD, shapes, 1, chunk=np.int64(chunk))
  return call(u, A, B, C, D, P, x, cpp.mask(reset), cpp.mask(valid))


def _backward(u, A, B, C, D, P, reset, valid, entries, y_bar, last_bar, *, chunk):
  (b, _, e), state = u.shape, last_bar.shape
  call = cpp.call(BACKWARD, (u.shape, state, state, state, (b, e), state), 1, chunk=np.int64(chunk))
  bars = call(u, A, B, C, D, P, cpp.mask(reset), cpp.mask(valid), entries, y_bar, last_bar)
  u_bar, A_bar, B_bar, C_bar, D_bar, x_bar = bars
  return u_bar, *(z.sum(axis=0) for z in (A_bar, B_bar, C_bar, D_bar)), jnp.zeros_like(P), x_bar, None, None
