"""`selective_scan` chunk by chunk, a parallel prefix inside each: for accelerators.

Only the states between chunks are kept. The decay and the input of every state exist inside a chunk and nowhere else;
the gradient makes them again.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from kernels import chunks
from kernels.discretize import discretize
from kernels.linear_scan import associative

CHUNK = 64


def selective_scan(x, dt, A, B, C, h, reset, disc):
  """Computes `reference.selective_scan`."""
  b, t, e = x.shape
  repeat = functools.partial(jnp.repeat, repeats=e // B.shape[2], axis=2)

  @functools.partial(jax.checkpoint, prevent_cse=False)
  def chunk(h, tokens):
    x, dt, B, C, reset = (None if z is None else z.swapaxes(0, 1) for z in tokens)
    decay, step_size = discretize(dt, A, disc)
    inflow = step_size * x[..., None] * repeat(B)
    flat = (*x.shape[:2], -1)
    states, h = associative.linear_scan(decay.reshape(flat), inflow.reshape(flat), h, reset)
    return h, (states.reshape(decay.shape) * repeat(C)).sum(-1).real.swapaxes(0, 1)

  # The filling of the last chunk has dt = 0, which leaves the state alone.
  tokens = *(chunks.split(z, CHUNK) for z in (x, dt, B, C)), None if reset is None else chunks.split(reset, CHUNK)
  last, y = lax.scan(chunk, h.reshape(b, -1), tokens)
  return chunks.join(y, t), last.reshape(h.shape)
