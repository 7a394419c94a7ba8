"""Products of the chunked forms: exact, or of bfloat16 factors with sums in float32, at a tensor core's rate.

Inputs of bfloat16 have 8 bits, so their products with each other lose nothing. What is computed from them, decayed
inputs and states, is rounded to 8 bits as a factor; sums, decays and the states themselves keep 24.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from kernels import dispatch, inputs, op


def factors(dtype: jnp.dtype, *arrays: Inexact[Array, "..."] | None) -> tuple:
  """Casts inputs to factors of products: bfloat16 if one has it and the device multiplies it, else `dtype`."""
  narrow = dispatch.multiplies_bfloat16() and any(z is not None and z.dtype == jnp.bfloat16 for z in arrays)
  return op.cast(jnp.bfloat16 if narrow else dtype, *arrays)


def widened(form: Callable, vectors: int, cast: Callable = op.cast) -> Callable:
  """Makes `form` take vectors of any dtype, which are cast to that of the state, or by `factors`.

  Args:
    vectors: how many of the first arguments they are; the last but one is the state.
  """
  return lambda *args: form(*cast(args[-2].dtype, *args[:vectors]), *args[vectors:])


def multiply(spec: str, x: Float[Array, "..."], y: Float[Array, "..."], factors: jnp.dtype) -> Float[Array, "..."]:
  """Computes `jnp.einsum` of two arrays whose entries are rounded to the dtype `factors` first.

  Sums are in the dtype of x and y together, at least float32, in the backward pass, too. No axis is in one array alone.
  """
  if factors == jnp.bfloat16:
    return _narrow(spec, x, y)
  # float32 means float32 on accelerators, too
  return jnp.einsum(spec, x.astype(factors), y.astype(factors), precision=jax.lax.Precision.HIGHEST)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _narrow(spec, x, y):
  return _dot(spec, x, y)


def _narrow_bwd(spec, saved, bar):
  x, y = saved
  (left, right), out = spec.split("->")[0].split(","), spec.split("->")[1]
  return _dot(f"{out},{right}->{left}", bar, y).astype(x.dtype), _dot(f"{out},{left}->{right}", bar, x).astype(y.dtype)


_narrow.defvjp(lambda spec, x, y: (_narrow(spec, x, y), (x, y)), _narrow_bwd)


def _dot(spec, x, y):
  return inputs.product(spec, x.astype(jnp.bfloat16), y.astype(jnp.bfloat16), jnp.float32)
