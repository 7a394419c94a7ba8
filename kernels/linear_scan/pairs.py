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


def where(keep, parts, other=0.0):
  """`parts` where `keep`, elsewhere the real number `other`; all of them if `keep` is None."""
  if keep is None:
    return parts
  return tuple(jnp.where(keep, z, other if i == 0 else 0.0) for i, z in enumerate(parts))
