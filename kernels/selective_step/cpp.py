"""`selective_step` on CPUs in C++ (cpp.cc), built when first used: one pass over the state, where it lies, in float32.

Its gradient is that of the definition, for which nothing is kept but the arguments.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from kernels import cpp, dispatch
from kernels.discretize import not_real_euler
from kernels.selective_step import reference

SOURCE = Path(__file__).with_suffix(".cc")
FORWARD, _ = cpp.handlers(SOURCE)
AXES = "b e", "b e", "e n", "b g n", "b g n", "e", "b e", "b e n"


def why_not(x, dt, A, B, C, D, z, h, softplus, disc) -> str | None:
  """Returns why this kernel cannot run these arguments, before the reasons of `cpp.why_not`."""
  return not_real_euler(h, disc) or cpp.why_not(SOURCE, h)


def selective_step(x, dt, A, B, C, D, z, h, softplus, disc):
  """Computes `reference.selective_step`."""
  step = functools.partial(_step, softplus)
  return dispatch.shard(step, AXES, ("b e", "b e n"))(x, dt, A, B, C, D, z, h)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _step(softplus, x, dt, A, B, C, D, z, h):
  D, z = (jnp.zeros((0,) * m, jnp.float32) if given is None else given for given, m in ((D, 1), (z, 2)))
  call = cpp.call(FORWARD, (x.shape, h.shape), 1, in_place={7: 1}, softplus=np.bool_(softplus))
  return call(x, dt, A, B, C, D, z, h)


def _backward(softplus, saved, bars):
  return jax.vjp(lambda *args: reference.selective_step(*args, softplus, "euler"), *saved)[1](bars)


_step.defvjp(lambda softplus, *args: (_step(softplus, *args), args), _backward)
