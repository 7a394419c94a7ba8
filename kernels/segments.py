"""Functions of the tokens of one segment, called for the segments of a document one after the other."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels import chunks, inputs

# Tokens between two states that are kept for the gradient, where documents start among them.
BLOCK = 64

Piece = Callable[[Float[Array, "b t d"], Any, Int[Array, "b"]], tuple[Float[Array, "b t d"], Any]]


def each(
  fn: Piece,
  x: Float[Array, "b t d"],
  state: Any,
  *,
  size: int,
  offset: Int[Array, "b"],
  initial: Any,
  reset: inputs.Reset = None,
  lengths: inputs.Lengths = None,
) -> tuple[Float[Array, "b t d"], Any]:
  """y, state = fn(x, state, lengths) for the tokens of one segment after the other; returns all y and the last state.

  Segments are of `size` tokens, counted from the document's start. With `reset` documents start anywhere, and fn is
  called for one token after the other. For the gradient states are kept between segments, or every few tokens, and the
  rest is computed again.

  Args:
    fn: takes tokens of one segment, perhaps not all of them, padded at the end to its `lengths`.
    state: a tree of "b ..." arrays.
    offset: tokens of the current segment before the first; below `size`.
    initial: the state before a document.
  """
  t = x.shape[1]
  if t == 0:
    return x, state
  valid = jnp.ones(x.shape[:2], bool) if lengths is None else inputs.valid(lengths, t)
  (x,) = inputs.blank(valid, x)
  if reset is None:
    return _by_segment(fn, x, state, size, offset, valid.sum(axis=1, dtype=jnp.int32))
  return _by_token(fn, x, state, initial, reset & valid, valid)


def _by_segment(fn: Piece, x, state, size: int, offset: Int[Array, "b"], n: Int[Array, "b"]):
  """Calls fn with the tokens of one segment at a time; the first has fewer, by those of earlier calls."""
  t = x.shape[1]
  segment = jnp.arange(1 - (1 - t) // size)
  first = jnp.maximum(segment[:, None] * size - offset, 0)  # token of each segment, "segments b"
  lengths = jnp.clip(jnp.minimum((segment[:, None] + 1) * size - offset, n) - first, 0)
  index = jnp.minimum(first[..., None] + jnp.arange(size), t - 1)
  tokens = jax.vmap(lambda index: jnp.take_along_axis(x, index[..., None], axis=1))(index)

  def call(state, segment):
    tokens, lengths = segment
    y, state = fn(tokens, state, lengths)
    return state, y

  state, y = jax.lax.scan(jax.checkpoint(call, prevent_cse=False), state, (tokens, lengths))
  position = offset[:, None] + jnp.arange(t)
  slot = position - jnp.where(position < size, offset[:, None], 0)  # among the calls, side by side
  y = jnp.moveaxis(y, 0, 1).reshape(len(x), -1, *y.shape[3:])
  return jnp.take_along_axis(y, slot[..., None], axis=1), state


def _by_token(fn: Piece, x, state, initial, reset: Bool[Array, "b t"], valid: Bool[Array, "b t"]):
  """Calls fn with one token at a time; the state is the initial one where a document starts."""

  def call(state, token):
    x, reset, valid = token
    state = jax.tree.map(functools.partial(inputs.where, reset), initial, state)
    y, state = fn(x[:, None], state, valid.astype(jnp.int32))
    return state, y[:, 0]

  block = jax.checkpoint(lambda state, tokens: jax.lax.scan(call, state, tokens), prevent_cse=False)
  state, y = jax.lax.scan(block, state, tuple(chunks.split(z, BLOCK) for z in (x, reset, valid)))
  return chunks.join(y, x.shape[1]), state
