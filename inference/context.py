"""The context of texts that are being generated: what the model has read of each, and what was drawn last."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from attention import cache
from hybrids.head import HEADS
from mistake import Mistake

# a stop sequence may have so many tokens
RECENT = 64
SMALLEST = 16
ENDLESS = 2**31 - 1


class Context(NamedTuple):
  """The context of a batch of texts, all that generation needs to go on; the batch comes first in every leaf."""

  state: Any  # the model's, after all tokens of the context but the last
  last: Int[Array, "b"]  # the last token, which the model has not read
  seen: Bool[Array, "b v"]  # the tokens that the context has anywhere
  recent: Int[Array, "b r"]  # the tokens drawn last since the prompt, newest last; -1 where there are fewer
  room: Int[Array, "b"]  # how many tokens the state can hold


def check_model(model: nn.Module) -> None:
  """Raises ValueError where a model cannot generate: it predicts no next token, or has no state."""
  name, predict = model.head["name"], sorted(name for name, head in HEADS.items() if head.PREDICTS)
  if model.vocab is None or name not in predict:
    raise Mistake(
      f"generate: the model has head {name!r}, which predicts no next token; use a model with a head of {predict}"
    )
  if model.STATE == "none":
    raise Mistake("generate: the model reads whole rows at once and has no state; use causal mixers")


def check_counts(what: str, **counts: int) -> None:
  """Raises a Mistake where one is below 1."""
  for name, value in counts.items():
    if value < 1:
      raise Mistake(f"{what}: {name}={value}; give at least 1")


def rounded(count: int) -> int:
  """Returns a multiple of 16 of at least `count`, from 128 on at most an eighth above it: few compiled shapes."""
  step = max(SMALLEST, 1 << max(count.bit_length() - 4, 0))
  return -(-count // step) * step


@partial(jax.jit, static_argnums=(0, 1, 2))
def make(model: nn.Module, batch: int, room: int) -> Context:
  """Returns the context of `batch` texts before any token; the state has room for exactly `room` tokens."""
  none = jnp.full((batch, RECENT), -1, jnp.int32)
  seen = jnp.zeros((batch, model.vocab), bool)
  limit = jnp.full(batch, ENDLESS if model.longest is None else room, jnp.int32)
  return Context(model.init_state(batch, room), jnp.zeros(batch, jnp.int32), seen, none, limit)


def start(model: nn.Module, batch: int, length: int) -> Context:
  """Returns the context of `batch` texts before any token, with room for `length` tokens or a few more.

  Raises:
    ValueError: the model generates no tokens, or has no room for so many.
  """
  check_model(model)
  limit = model.longest
  if limit is None:
    # no leaf grows with the room, and one program starts them all
    return make(model, batch, SMALLEST)
  if length > limit:
    raise Mistake(f"generate: room for {length} tokens is asked for, but the model has max_len={limit}")
  return make(model, batch, min(rounded(length), limit))


def fork(context: Context, count: int) -> Context:
  """Returns `count` copies of each row, one after the other, to go on in several ways from one prompt.

  Raises:
    ValueError: `count` is below 1.
  """
  check_counts("fork", count=count)
  return _repeated(context, count)


@partial(jax.jit, static_argnums=(1,))
def _repeated(context: Context, count: int) -> Context:
  return jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), context)


def rows(tree: Any, index: Int[Array, "n"] | slice) -> Any:
  """Returns the rows `index` of every leaf, in that order."""
  return jax.tree.map(lambda leaf: leaf[index], tree)


@partial(jax.jit, donate_argnums=(0,))
def put(context: Context, row: int | Int[Array, ""], one: Context) -> Context:
  """Returns the context with the one row of `one` in place of a row; the first argument is used up."""
  return jax.tree.map(lambda leaf, new: leaf.at[row].set(new[0]), context, one)


def held(still: Bool[Array, "b"], old: Any, new: Any) -> Any:
  """Returns the state after a step, except for rows that stand still, which have the state before it.

  A cache of keys and values stays in place: a row that stands still has its new token written but not counted, and the
  next token takes that slot.
  """

  def pick(old: Array, new: Array) -> Array:
    return jnp.where(still.reshape(-1, *(1,) * (new.ndim - 1)), old, new)

  def hold(old: Any, new: Any) -> Any:
    if not isinstance(old, cache.Cache):
      return pick(old, new)
    consumed, begin = pick(old.consumed, new.consumed), pick(old.start, new.start)
    segment = jnp.where(new.position < consumed[:, None], new.segment, -1)
    return new._replace(segment=segment, consumed=consumed, start=begin)

  return jax.tree.map(hold, old, new, is_leaf=lambda node: isinstance(node, cache.Cache))
