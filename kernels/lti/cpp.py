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
AXES = ("b t e", *["n e"] * 6, "e", *["n e"] * 2, *["b n e"] * 2, "b t", "b t")


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
  chunk, far = (system.O.shape[1], system.P) if system.far is None else (FAR, system.far)
  A, B, CA = system.A, system.I[..., -1], system.O[:, 0]
  constants = (*_parts(A.T), *_parts(B.T), *_parts(CA.T), system.K[:, 0], *_parts(far.T))
  scan = dispatch.shard(_scan(chunk), AXES, ("b t e", "b n e", "b n e"))
  y, re, im = scan(u, *constants, *_parts(x.swapaxes(1, 2)), reset, valid)
  re, im = re.swapaxes(1, 2), im.swapaxes(1, 2)
  return y, re if jnp.isrealobj(x) else jax.lax.complex(re, im)


def _parts(z):
  return z.real, z.imag


@functools.cache
def _scan(chunk):
  """Returns the differentiable kernel: of arrays that are real, as XLA cannot hand complex ones to it."""
  run, backward = (functools.partial(each, chunk=np.int64(chunk)) for each in (_run, _backward))
  scan = kept_states.differentiable(run, backward, state=10)

  # meshes cut arrays alone, and the state is two of them
  def flat(*args):
    y, last = scan(*args[:10], args[10:12], *args[12:])
    return y, *last

  return flat


def _run(*args, chunk, save):
  """Returns all y, both parts of the last state, and if `save` the states before each chunk, else none."""
  *given, state, reset, valid = args
  (b, t, _), shape = given[0].shape, state[0].shape
  shapes = (given[0].shape, shape, shape, (b, -int(-t // chunk) if save else 0, 2, *shape[1:]))
  y, *last, entries = cpp.call(FORWARD, shapes, chunk=chunk)(*given, *state, cpp.mask(reset), cpp.mask(valid))
  return y, tuple(last), entries


def _backward(*saved, chunk):
  *given, reset, valid, entries, y_bar, last_bar = saved
  u, state = given[0], last_bar[0].shape
  shapes = (u.shape, *[state] * 6, (u.shape[0], u.shape[2]), state, state)
  call = cpp.call(BACKWARD, shapes, chunk=chunk)
  u_bar, *of_rows, re_bar, im_bar = call(*given, cpp.mask(reset), cpp.mask(valid), entries, y_bar, *last_bar)
  sums = (z.sum(axis=0) for z in of_rows)
  return u_bar, *sums, jnp.zeros_like(given[8]), jnp.zeros_like(given[9]), (re_bar, im_bar), None, None
