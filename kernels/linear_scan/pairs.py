"""Complex numbers as pairs of real arrays, for loops that are slow on complex ones; a real array is a tuple of one."""

import jax.numpy as jnp
from jax import lax


def parts(z):
  return (z.real, z.imag) if jnp.iscomplexobj(z) else (z,)


def whole(parts):
  return lax.complex(*parts) if len(parts) == 2 else parts[0]


def add(p, q):
  return tuple(u + v for u, v in zip(p, q))


def product(p, q):
  if len(p) == 1:
    return (p[0] * q[0],)
  return p[0] * q[0] - p[1] * q[1], p[0] * q[1] + p[1] * q[0]


def clear(reset, parts):
  """Sets numbers to 0 where `reset` is True; None: nowhere."""
  return parts if reset is None else tuple(jnp.where(reset, 0.0, z) for z in parts)


def where(valid, parts, other=0.0):
  """Takes the numbers where `valid` is True, elsewhere the real number `other`."""
  return tuple(jnp.where(valid, z, other if i == 0 else 0.0) for i, z in enumerate(parts))
