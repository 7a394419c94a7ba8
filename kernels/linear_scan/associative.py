"""`linear_scan` by a parallel prefix inside each chunk and a loop over chunks: for accelerators."""

import jax.numpy as jnp
from jax import lax

from kernels import chunks, op
from kernels.linear_scan import adjoint

CHUNK = 256


def _run(a, x, h, reset, *, reverse):
  """Forwards all h_t and the last; in reverse, with y_bar for x and s_T for h, all x_bar_t and s_0 of `adjoint`."""
  t = x.shape[1]
  constant = a.ndim == 1
  if reverse:
    # The filling of the last chunk must not come between the cotangent of the last state and the last token.
    x, h = x.at[:, -1].add(h), jnp.zeros_like(h)

  def chunk(h, tokens):
    x, decay, reset = tokens
    if constant:
      decay = jnp.broadcast_to(a, (x.shape[0], 1, a.shape[0]))
    # a decay of 0 where a document starts would not do: 0 times NaN is NaN
    resets = () if reset is None else (jnp.broadcast_to(reset[..., None], x.shape),)
    pass_on = lambda z: op.cleared(resets[0][0] if resets else None, decay[0] * z)
    if reverse:
      decays, *ends = (jnp.roll(z, -1, axis=0) for z in (decay, *resets))
      _, y, *_ = lax.associative_scan(_combine, (decays, x.at[-1].add(h), *ends), reverse=True)
      return pass_on(y[0]), y
    _, y, *_ = lax.associative_scan(_combine, (decay, x.at[0].add(pass_on(h)), *resets))
    return y[-1], y

  tokens = (
    chunks.split(x, CHUNK),
    None if constant else chunks.split(a, CHUNK),
    None if reset is None else chunks.split(reset, CHUNK),
  )
  last, y = lax.scan(chunk, h, tokens, reverse=reverse)
  y = chunks.join(y, t)
  return y, last if reverse else y[:, -1]


def _forward(a, x, h, reset):
  return _run(a, x, h, reset, reverse=False)


def _backward(a, h, y, reset, y_bar, last_bar):
  x_bar, h_bar = _run(a, y_bar, last_bar, reset, reverse=True)
  return adjoint.decay_bar(a, h, y, reset, x_bar), x_bar, h_bar


linear_scan = adjoint.differentiable(_forward, _backward)


def _combine(first, second):
  """h -> a h + x, one after the other, or h -> x if a document starts in it."""
  decay, flow = second[0] * first[0], second[0] * first[1]
  if len(second) == 2:
    return decay, flow + second[1]
  return decay, op.cleared(second[2], flow) + second[1], first[2] | second[2]
