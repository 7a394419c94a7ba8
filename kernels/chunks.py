"""Cutting the time axis into chunks of equal length, for loops over chunks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def split(z: Shaped[Array, "b t ..."], most: int, fill: bool | float = 0) -> Shaped[Array, "chunks c b ..."]:
  """Chunks of at most `most` tokens, time before batch; the last one is filled up with `fill`.

  The tokens are spread evenly, so that fewer than one token a chunk is filling.
  """
  t = z.shape[1]
  count = -(-t // most)
  size = -(-t // count)
  z = jnp.pad(z.swapaxes(0, 1), [(0, count * size - t)] + [(0, 0)] * (z.ndim - 1), constant_values=fill)
  return z.reshape(count, size, *z.shape[1:])


def join(z: Shaped[Array, "chunks c b ..."], t: int) -> Shaped[Array, "b t ..."]:
  """The inverse of `split` for t tokens."""
  return z.reshape(-1, *z.shape[2:])[:t].swapaxes(0, 1)


def fold(
  block: Callable[[Any, Any], tuple[Any, Any]], S: Any, tokens: Any, *, most: int, together: int = 1
) -> tuple[Any, Float[Array, "b t h p"]]:
  """The last S and all y of `S, y = block(S, tokens)`, from block to block; tokens are "b t h k", y is "b t h p".

  For the gradient only every `together`-th S is kept; within such a chunk everything is computed again. A block sees
  "b h c k" and returns "b h c p". What fills the last ones up is zero.
  """
  t = jax.tree.leaves(tokens)[0].shape[1]
  blocks = jax.tree.map(lambda z: split(jnp.moveaxis(split(z, most), 0, 1), together), tokens)  # "m n c b h k"
  chunk = jax.checkpoint(lambda S, z: jax.lax.scan(block, S, z), prevent_cse=False)
  S, y = jax.lax.scan(chunk, S, jax.tree.map(lambda z: jnp.moveaxis(z, 2, 4), blocks))
  y = jnp.moveaxis(y.reshape(-1, *y.shape[2:]), 3, 1)  # "blocks c b h p"
  count = -(-t // most)
  return S, join(y[:count], t)
