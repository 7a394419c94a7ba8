"""`linear_scan` as a loop over time, time before batch, complex as pairs of real arrays: the fast form on CPU."""

import jax.numpy as jnp
from jax import lax

from kernels.linear_scan import adjoint


def _run(a, x, h, keep, reverse):
  """Both directions of `adjoint.differentiable`."""
  constant = a.ndim == 1
  a, x, h = (_parts(z) for z in (a, x, h))
  tokens = tuple(z.swapaxes(0, 1) for z in x), None if constant else tuple(z.swapaxes(0, 1) for z in a)
  keep = None if keep is None else keep.swapaxes(0, 1)[..., None]

  def step(h, inputs):
    (x, a_t), keep = inputs
    a_t = a if constant else a_t
    y = _add(_product(a_t, _where(keep, h)), x)
    return y, y

  def back(s, inputs):
    (y_bar, a_t), keep = inputs
    x_bar = _add(y_bar, s)
    return _where(keep, _product(a if constant else a_t, x_bar)), x_bar

  last, y = lax.scan(back if reverse else step, h, (tokens, keep), reverse=reverse)
  return _whole(tuple(z.swapaxes(0, 1) for z in y)), _whole(last)


linear_scan = adjoint.differentiable(_run)


def _parts(z):
  return (z.real, z.imag) if jnp.iscomplexobj(z) else (z,)


def _whole(parts):
  return lax.complex(*parts) if len(parts) == 2 else parts[0]


def _add(p, q):
  return tuple(u + v for u, v in zip(p, q))


def _product(p, q):
  if len(p) == 1:
    return (p[0] * q[0],)
  return p[0] * q[0] - p[1] * q[1], p[0] * q[1] + p[1] * q[0]


def _where(keep, parts):
  return parts if keep is None else tuple(jnp.where(keep, z, 0) for z in parts)
