"""`selective_scan` as a loop over time, channels last, with its gradient written out: the fast form on CPU.

Two nested loops, over chunks and over the tokens of a chunk. Only the states entering the chunks are kept for the
gradient, which recomputes those inside a chunk just before it needs them: memory grows with t / CHUNK.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from kernels import chunks
from kernels.kept_states import named

CHUNK = 16


class Tokens(NamedTuple):
  """Inputs by chunk, time before batch, channels split into their groups and last; one token's or all of them."""

  x: Float[Array, "*t b g d"]
  dt: Float[Array, "*t b g d"]
  B: Float[Array, "*t b g n"]
  C: Float[Array, "*t b g n"]
  reset: Bool[Array, "*t b"] | None


def selective_scan(x, dt, A, B, C, h, reset, disc):
  """Computes `reference.selective_scan`."""
  return _scan(x, dt, A, B, C, h, reset)


@jax.custom_vjp
def _scan(x, dt, A, B, C, h, reset):
  return _forward(x, dt, A, B, C, h, reset)[0]


def _forward(x, dt, A, B, C, h, reset):
  groups = B.shape[2]
  tokens, A_lanes = _chunks(x, dt, B, C, reset), _lanes(A, groups)

  def step(h, token):
    h = _advance(A_lanes, _cleared(h, token), token)
    return h, _read(h, token.C)

  def chunk(h, tokens):
    last, y = lax.scan(step, h, tokens)
    return last, (y, h)

  last, (y, entries) = named(lax.scan(chunk, _lanes(h, groups), tokens))
  return (_rows(y, x), _channels(last)), (x, dt, A, B, C, reset, entries)


def _backward(saved, cotangents):
  x, dt, A, B, C, reset, entries = saved
  y_bar, last_bar = cotangents
  groups = B.shape[2]
  tokens, A_lanes = _chunks(x, dt, B, C, reset), _lanes(A, groups)
  y_bar = chunks.split(y_bar.reshape(*y_bar.shape[:2], groups, -1), CHUNK)

  def chunk(carry, inputs):
    tokens, y_bar, entry = inputs

    def enter(h, token):
      h = _cleared(h, token)
      return _advance(A_lanes, h, token), h

    _, entering = lax.scan(enter, entry, tokens)
    return lax.scan(functools.partial(_adjoint, A_lanes), carry, (tokens, y_bar, entering), reverse=True)

  carry = _lanes(last_bar, groups), jnp.zeros_like(entries[0])
  (h_bar, A_bar), bars = lax.scan(chunk, carry, (tokens, y_bar, entries), reverse=True)
  x_bar, dt_bar, B_bar, C_bar = (_rows(bar, z) for bar, z in zip(bars, (x, dt, B, C)))
  return x_bar, dt_bar, _channels(A_bar.sum(0)), B_bar, C_bar, _channels(h_bar), None


_scan.defvjp(_forward, _backward)


def _advance(A, h, token):
  return jnp.exp(token.dt[:, :, None] * A) * h + (token.dt * token.x)[:, :, None] * token.B[..., None]


def _adjoint(A, carry, inputs):
  """Goes one step back: returns the cotangents of one token, and what flows to the state before it.

  The barriers stop XLA from fusing a value into each of its users, that is from computing every exp several times. Sums
  over an axis that is not the last are several times slower as a reduction than as products (C, B) or as slices (A).
  """
  h_bar, A_bar = carry
  token, y_bar, entering = inputs
  inflow = token.dt * token.x
  decay = lax.optimization_barrier(jnp.exp(token.dt[:, :, None] * A))
  h_bar = lax.optimization_barrier(h_bar + y_bar[:, :, None] * token.C[..., None])
  before_bar = lax.optimization_barrier(h_bar * decay)
  exponent_bar = lax.optimization_barrier(before_bar * entering)
  h = lax.optimization_barrier(decay * entering + inflow[:, :, None] * token.B[..., None])
  inflow_bar = _read(h_bar, token.B)
  dt_bar = sum(exponent_bar[:, :, n] * A[:, n] for n in range(A.shape[1])) + inflow_bar * token.x
  B_bar, C_bar = _sum_channels(h_bar, inflow), _sum_channels(h, y_bar)
  carry = _cleared(before_bar, token), A_bar + exponent_bar * token.dt[:, :, None]
  return carry, (inflow_bar * token.dt, dt_bar, B_bar, C_bar)


def _read(h, C):
  return jnp.einsum("bgnd,bgn->bgd", h, C, precision="highest")


def _sum_channels(h, weights):
  return jnp.einsum("bgnd,bgd->bgn", h, weights, precision="highest")


def _cleared(h, token):
  return h if token.reset is None else jnp.where(token.reset[:, None, None, None], 0, h)


def _chunks(x, dt, B, C, reset) -> Tokens:
  """Returns the inputs as Tokens; the filling of the last chunk has dt = 0, which leaves the state alone."""
  x, dt = (z.reshape(*z.shape[:2], B.shape[2], -1) for z in (x, dt))
  x, dt, B, C = (chunks.split(z, CHUNK) for z in (x, dt, B, C))
  return Tokens(x, dt, B, C, None if reset is None else chunks.split(reset, CHUNK))


def _rows(z, like):
  """Puts the tokens after one another again, in the shape of `like`."""
  return chunks.join(z, like.shape[1]).reshape(like.shape)


def _lanes(z, groups):
  """Moves channels by group, and last: "... e n" -> "... g n d"."""
  return z.reshape(*z.shape[:-2], groups, -1, z.shape[-1]).swapaxes(-1, -2)


def _channels(z):
  """Returns the inverse of `_lanes`: "... g n d" -> "... e n"."""
  z = z.swapaxes(-1, -2)
  return z.reshape(*z.shape[:-3], -1, z.shape[-1])
