"""Cutting the time axis into chunks of equal length, for loops over chunks."""

import jax.numpy as jnp
from jaxtyping import Array, Shaped


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
