"""`linear_scan` as a loop over time, time before batch, complex as pairs, for CPUs without a compiler."""

import jax.numpy as jnp
from jax import lax

from kernels.linear_scan import adjoint
from kernels.linear_scan.pairs import add, clear, parts, product, whole


def _forward(a, x, h, reset):
  """Returns all h_t and the last one."""
  decay = _Decay(a)

  def step(h, inputs):
    x, a_t, reset = inputs
    h = add(product(decay.at(a_t), clear(reset, h)), x)
    return h, h

  last, y = lax.scan(step, parts(h), (_rows(x), decay.rows, _column(reset)))
  return whole(_swap(y)), whole(last)


def _backward(a, h, y, reset, y_bar, last_bar):
  """Computes `adjoint`. A constant decay's gradient is summed on the way; alone it costs as much as the loop."""
  decay = _Decay(a)
  zero = tuple(jnp.zeros_like(z) for z in parts(h)) if decay.constant else None

  def step(carry, inputs):
    s, later, a_bar = carry
    y_bar, a_t, reset, h = inputs
    if decay.constant:
      # h is the state after this token, and `later` x_bar of the next
      a_bar = add(a_bar, product(later, h))
    x_bar = add(y_bar, s)
    flow = clear(reset, x_bar)
    return (product(decay.at(a_t), flow), flow if decay.constant else None, a_bar), x_bar

  inputs = (_rows(y_bar), decay.rows, _column(reset), _rows(y) if decay.constant else None)
  (h_bar, first, a_bar), x_bar = lax.scan(step, (parts(last_bar), zero, zero), inputs, reverse=True)
  x_bar, h_bar = whole(_swap(x_bar)), whole(h_bar)
  if not decay.constant:
    return adjoint.decay_bar(a, h, y, reset, x_bar), x_bar, h_bar
  return whole(add(a_bar, product(first, parts(h)))).sum(0), x_bar, h_bar


linear_scan = adjoint.differentiable(_forward, _backward)


class _Decay:
  """One decay for all tokens, or one a token: then `rows` are what the loop runs over."""

  def __init__(self, a):
    self.constant = a.ndim == 1
    self.all = parts(a)
    self.rows = None if self.constant else _rows(a)

  def at(self, row):
    return self.all if self.constant else row


def _rows(z):
  return _swap(parts(z))


def _swap(pair):
  return tuple(z.swapaxes(0, 1) for z in pair)


def _column(reset):
  return None if reset is None else reset.swapaxes(0, 1)[..., None]
