"""`linear_scan` as a loop over time, time before batch, complex as pairs of real arrays: the fast form on CPU."""

import jax.numpy as jnp
from jax import lax

from kernels.linear_scan import adjoint


def _forward(a, x, h, keep):
  """All h_t and the last."""
  decay = _Decay(a)

  def step(h, inputs):
    x, a_t, keep = inputs
    h = _add(_product(decay.at(a_t), _where(keep, h)), x)
    return h, h

  last, y = lax.scan(step, _parts(h), (_rows(x), decay.rows, _keep(keep)))
  return _whole(_swap(y)), _whole(last)


def _backward(a, h, y, keep, y_bar, last_bar):
  """See `adjoint`. The gradient of a constant decay is summed up on the way, by itself it costs as much as the loop."""
  decay = _Decay(a)
  zero = tuple(jnp.zeros_like(z) for z in _parts(h)) if decay.constant else None

  def step(carry, inputs):
    s, later, a_bar = carry
    y_bar, a_t, keep, h = inputs
    if decay.constant:
      # h is the state after this token, and `later` x_bar of the next
      a_bar = _add(a_bar, _product(later, h))
    x_bar = _add(y_bar, s)
    flow = _where(keep, x_bar)
    return (_product(decay.at(a_t), flow), flow if decay.constant else None, a_bar), x_bar

  inputs = (_rows(y_bar), decay.rows, _keep(keep), _rows(y) if decay.constant else None)
  (h_bar, first, a_bar), x_bar = lax.scan(step, (_parts(last_bar), zero, zero), inputs, reverse=True)
  x_bar, h_bar = _whole(_swap(x_bar)), _whole(h_bar)
  if not decay.constant:
    return adjoint.decay_bar(a, h, y, keep, x_bar), x_bar, h_bar
  return _whole(_add(a_bar, _product(first, _parts(h)))).sum(0), x_bar, h_bar


linear_scan = adjoint.differentiable(_forward, _backward)


class _Decay:
  """One decay for all tokens, or one a token: then `rows` are what the loop runs over."""

  def __init__(self, a):
    self.constant = a.ndim == 1
    self.all = _parts(a)
    self.rows = None if self.constant else _rows(a)

  def at(self, row):
    return self.all if self.constant else row


def _rows(z):
  return _swap(_parts(z))


def _swap(parts):
  return tuple(z.swapaxes(0, 1) for z in parts)


def _keep(keep):
  return None if keep is None else keep.swapaxes(0, 1)[..., None]


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
