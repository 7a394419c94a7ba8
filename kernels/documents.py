"""Functions of a whole sequence, done for each document of a row by itself."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels import inputs


def positions(
  before: Int[Array, "b"], t: int, *, reset: inputs.Reset = None, lengths: inputs.Lengths = None
) -> tuple[Int[Array, "b t"], Int[Array, "b"]]:
  """Counts the tokens of its document before each of t tokens, and the tokens so far of each row's last document.

  Args:
    before: tokens that the document which a row continues has before the row's first token.
    reset: True where a document starts.
    lengths: tokens of each row; positions at padding mean nothing.
  """
  time = jnp.arange(t, dtype=jnp.int32)
  start = jnp.broadcast_to(-before[:, None], (before.shape[0], t))
  n = jnp.int32(t) if lengths is None else jnp.clip(lengths, 0, t).astype(jnp.int32)
  if reset is not None:
    start = jax.lax.cummax(jnp.where(reset & (time < n[..., None]), time, start), axis=1)
  # `start` never falls along a row, so its maximum is that of the last document; t may be 0, hence `initial`
  return time - start, n - jnp.maximum(-before, jnp.max(start, axis=1, initial=jnp.iinfo(jnp.int32).min))


def each(
  fn: Callable[..., Float[Array, "b t ..."]], shared: Any, tokens: Any, *, reset: inputs.Reset, lengths: inputs.Lengths
) -> Float[Array, "b t ..."]:
  """Calls fn(shared, tokens, lengths) with a row for each document, and returns its outputs; 0 past `lengths`.

  The computation of fn may depend on the length of a document, as landmarks, blocks or frequencies do. fn runs on one
  document of each row at a time, at the cost of a whole row: time grows with the largest number of documents in a row;
  memory does not, nor does that of the backward pass, which runs fn again for each document. With `reset` there is one
  derivative, in reverse mode (jax.grad, jax.vjp): neither forward mode nor the gradient of a gradient.

  Args:
    fn: does not look at tokens past `lengths`, which are zero. It closes over nothing that has a gradient.
    shared: what all tokens share, a tree of floating arrays.
    tokens: a tree of floating arrays "b t ...".
    reset: True where a document starts; without it fn is called once, and lengths may be None.
  """
  x = jax.tree.leaves(tokens)[0]
  valid = None if lengths is None else inputs.valid(lengths, x.shape[1])
  tokens = jax.tree.map(lambda z: inputs.blank(valid, z)[0], tokens)
  if reset is None:
    return inputs.blank(valid, fn(shared, tokens, lengths))[0]
  document = jnp.cumsum(reset.at[:, :1].set(True), axis=1) - 1
  return _each(fn, shared, tokens, inputs.blank(valid, document, value=-1)[0])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _each(fn, shared, tokens, document):
  one = lambda i: _one(fn, shared, tokens, document, i)
  y = jax.eval_shape(one, jnp.zeros((), jnp.int32))
  return jax.lax.fori_loop(0, _count(document), lambda i, y: y + one(i), jnp.zeros(y.shape, y.dtype))


def _fwd(fn, shared, tokens, document):
  return _each(fn, shared, tokens, document), (shared, tokens, document)


def _bwd(fn, saved, y_bar):
  shared, tokens, document = saved

  def one(i, total):
    _, pull = jax.vjp(lambda shared, tokens: _one(fn, shared, tokens, document, i), shared, tokens)
    return jax.tree.map(lambda so_far, new: so_far + new.astype(so_far.dtype), total, pull(y_bar))

  # the gradient of `shared` is a sum over documents; that of a token comes from its own document alone
  wide = jax.tree.map(lambda z: jnp.zeros(z.shape, inputs.compute_dtype(z)), shared)
  shared_bar, tokens_bar = jax.lax.fori_loop(0, _count(document), one, (wide, jax.tree.map(jnp.zeros_like, tokens)))
  return jax.tree.map(lambda bar, z: bar.astype(z.dtype), shared_bar, shared), tokens_bar, None


_each.defvjp(_fwd, _bwd)


def _count(document: Int[Array, "b t"]) -> Int[Array, ""]:
  return jnp.max(document, initial=-1) + 1


def _one(fn, shared, tokens, document: Int[Array, "b t"], i: Int[Array, ""]) -> Float[Array, "b t ..."]:
  """Moves document i of each row to the front, calls fn, and moves the outputs back to their place among zeros."""
  t = document.shape[1]
  ours = document == i
  lengths, first = ours.sum(axis=1, dtype=jnp.int32), jnp.argmax(ours, axis=1)[:, None]
  valid = inputs.valid(lengths, t)
  front = lambda z: inputs.blank(valid, _at(z, (jnp.arange(t) + first) % t))[0]
  y = fn(shared, jax.tree.map(front, tokens), lengths)
  return inputs.blank(ours, _at(y, (jnp.arange(t) - first) % t))[0]


def _at(z: Float[Array, "b t ..."], index: Int[Array, "b t"]) -> Float[Array, "b t ..."]:
  return jnp.take_along_axis(z, jax.lax.expand_dims(index, range(2, z.ndim)), axis=1)
