"""Cutting the time axis into chunks of equal length, for loops over chunks, and masks of tokens as bits."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped


def up(size: int, multiple: int) -> int:
  """Returns the least multiple that is not below `size`."""
  return -(-size // multiple) * multiple


def words(reset: Bool[Array, "b t"], tile: int, upto: int) -> Int[Array, "b tiles"]:
  """Packs a mask into bits, `tile` tokens in a word; tokens past the end, up to `upto`, are False."""
  reset = jnp.pad(reset, ((0, 0), (0, upto - reset.shape[1])))
  bits = reset.reshape(len(reset), -1, tile).astype(jnp.int32)
  return (bits << jnp.arange(tile, dtype=jnp.int32)).sum(-1, dtype=jnp.int32)


def split(z: Shaped[Array, "b t ..."], most: int) -> Shaped[Array, "chunks c b ..."]:
  """Cuts z into chunks of at most `most` tokens, time before batch; the last one is filled up with zeros.

  The tokens are spread evenly, so that fewer than one token a chunk is filling.
  """
  t = z.shape[1]
  count = -(-t // most)
  size = -(-t // count)
  z = jnp.pad(z.swapaxes(0, 1), [(0, count * size - t)] + [(0, 0)] * (z.ndim - 1))
  return z.reshape(count, size, *z.shape[1:])


def join(z: Shaped[Array, "chunks c b ..."], t: int) -> Shaped[Array, "b t ..."]:
  """Returns the inverse of `split` for t tokens."""
  return z.reshape(-1, *z.shape[2:])[:t].swapaxes(0, 1)


def fold(
  local: Callable[[Any], Any],
  block: Callable[[Any, Any], tuple[Any, Any]],
  finish: Callable[[Any, Any, Any], Any],
  S: Any,
  tokens: Any,
  *,
  most: int,
  together: int,
) -> tuple[Any, Float[Array, "b t h p"]]:
  """Returns the last S, and all y; tokens are "b t h k", y "b t h p".

  Of a chunk of blocks, `locals = local(tokens)` sees all tokens at once, as "n b h c k". `S, result = block(S, its
  local)` goes from block to block. `y = finish(locals, all S before blocks, all results)` is for all at once again, as
  "n b h c p". For the gradient only the S before each chunk is kept, and within a chunk all is computed again. What
  fills the last blocks and the last chunk is zero.

  Args:
    most: tokens of a block.
    together: blocks of a chunk.
  """
  t = jax.tree.leaves(tokens)[0].shape[1]
  blocks = jax.tree.map(lambda z: split(jnp.moveaxis(split(z, most), 0, 1), together), tokens)  # "m n c b h k"

  def chunk(S, tokens):
    locals_ = local(tokens)

    def step(S, local):
      after, result = block(S, local)
      return after, (S, result)

    S, (before, result) = jax.lax.scan(step, S, locals_)
    return S, finish(locals_, before, result)

  by_head = jax.tree.map(lambda z: jnp.moveaxis(z, 2, 4), blocks)
  S, y = jax.lax.scan(jax.checkpoint(chunk, prevent_cse=False), S, by_head)
  y = jnp.moveaxis(y.reshape(-1, *y.shape[2:]), 3, 1)  # "blocks c b h p"
  return S, join(y[: -(-t // most)], t)
