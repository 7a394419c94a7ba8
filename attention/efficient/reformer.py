"""Reformer: attention among tokens with the same hash under a random rotation (LSH attention). State: none.

Kitaev, Kaiser & Levskaya 2020, arXiv:2001.04451. Theirs: l -> t, d_k -> k, b -> buckets, m -> chunk.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from attention.efficient.unordered import softmax
from kernels import documents
from kernels.inputs import compute_dtype, valid
from layers import Dense, buffer, heads
from layers.mixer import Mixer, Where
from layers.qkv import unit
from layers.sizes import at_least_one
from mistake import Mistake


class Reformer(Mixer):
  """y_t = softmax_s(q_t . q_s / |q_s|) v_s for each head, over the s near t in the order of hashes     sec. 2

  and W_o of all y. The hash of a token is argmax([R q, -R q]). Tokens are sorted by hash and then by position, and cut
  into chunks; a token sees its chunk and the one before, and sees itself only where there is no other token. Several
  rounds, each with its own R, are averaged with their sums of exponentials as weights, app. A. Departs: tokens with
  other hashes in the two chunks are seen, too, and the first chunk looks back at the last one, as in the authors' code;
  a token that is seen in several rounds counts once for each; R is drawn once, at initialisation, and kept in the
  collection "buffers" and not trained.

  Attributes:
    heads: the largest divisor of the width not above 8, if not given.
    buckets: number of different hashes; even.
    rounds: 1 in the Long Range Arena, up to 8 in the paper.
    chunk: tokens in a chunk. 64 is the default of Hugging Face's ReformerConfig; Google's code of the Long Range Arena
      has the length over the number of buckets, as many as share a hash on average.
    bias: whether the three linear maps have biases.
  """

  width: int
  heads: int | None = None
  buckets: int = 10
  rounds: int = 1
  chunk: int = 64
  bias: bool = False

  STATE = "none"

  @nn.nowrap
  def check(self) -> None:
    heads.count(self)
    at_least_one(self, "buckets", "rounds", "chunk")
    if self.buckets % 2:
      raise Mistake(f"Reformer: buckets={self.buckets}; R q and -R q make an even number of them")

  def setup(self):
    count = heads.count(self)
    dense = lambda *axes: Dense(self.width, use_bias=self.bias, kernel_init=heads.GLOROT, axes=axes)
    self.q_proj, self.v_proj, self.out_proj = dense("embed", "heads"), dense("embed", "kv"), dense("heads", "embed")
    shape = (count, self.width // count, self.rounds, self.buckets // 2)
    self.R = buffer(self, "R", nn.initializers.normal(1.0), shape, ("heads", None, None, None))

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    whole = functools.partial(_whole, self.chunk)
    tokens = tuple(heads.split(proj(x), heads.count(self)) for proj in (self.q_proj, self.v_proj))
    y = documents.each(whole, self.R, tokens, **where.masks)
    return self.out_proj(y.reshape(x.shape))


def _whole(chunk: int, R: Float[Array, "h k r m"], tokens, lengths) -> Float[Array, "b t h k"]:
  b, t = tokens[0].shape[:2]
  wide, size = compute_dtype(*tokens), min(chunk, t)
  n = jnp.full(b, t, jnp.int32) if lengths is None else lengths
  filled = lambda z: jnp.moveaxis(jnp.pad(z.astype(wide), ((0, 0), (0, -t % size), (0, 0), (0, 0))), 1, 2)
  q, v = map(filled, tokens)  # "b h t k"
  order = _order(q, R.astype(wide), n)  # "b h r t"
  sort = lambda z: jnp.take_along_axis(z[:, :, None], order[..., None], axis=3)
  cut = lambda z: z.reshape(*z.shape[:3], -1, size, *z.shape[4:])
  q, k, v, index = (cut(z) for z in (sort(q), sort(unit(q, eps=1e-6 * q.shape[-1])), sort(v), order))
  back, looks = _chunk_before(q.shape[3], n, size)

  def with_back(z):
    """Returns each chunk, followed by the chunk that it looks back at."""
    chunk = back.reshape(b, 1, 1, -1, *[1] * (z.ndim - 4))
    return jnp.concatenate([z, jnp.take_along_axis(z, chunk, axis=3)], axis=4)

  key_index = with_back(index)
  own = jnp.arange(2 * size) < size
  looked_at = (key_index < n[:, None, None, None, None]) & (looks[:, None, None, :, None] | own)
  see = looked_at[..., None, :] & (index[..., None] != key_index[..., None, :])
  # a token that sees no other token sees itself, at the same index among its chunk's keys as among the queries
  see |= ~see.any(axis=-1, keepdims=True) & jnp.eye(size, 2 * size, dtype=bool)
  weights, total = softmax(jnp.einsum("...ik,...jk->...ij", q, with_back(k)), see)
  y = jnp.einsum("...ij,...jp->...ip", weights, with_back(v))
  undo = jnp.argsort(order, axis=-1)
  y = jnp.take_along_axis(y.reshape(*order.shape, -1), undo[..., None], axis=3)
  share = jax.nn.softmax(jnp.take_along_axis(total.reshape(order.shape), undo, axis=3), axis=2)
  return jnp.einsum("bhrt,bhrtp->bthp", share, y)[:, :t].astype(tokens[1].dtype)


def _order(q: Float[Array, "b h t k"], R: Float[Array, "h k r m"], n: Int[Array, "b"]) -> Int[Array, "b h r t"]:
  """Returns the indices of the tokens sorted by hash, then by position; the padding comes last."""
  turned = jnp.einsum("bhtk,hkrm->bhrtm", jax.lax.stop_gradient(q), R)
  hashes = jnp.argmax(jnp.concatenate([turned, -turned], axis=-1), axis=-1)
  hashes = jnp.where(valid(n, q.shape[2])[:, None, None], hashes, 2 * R.shape[-1])
  return jnp.argsort(hashes, axis=-1, stable=True)


def _chunk_before(chunks: int, n: Int[Array, "b"], size: int) -> tuple[Int[Array, "b i"], Bool[Array, "b i"]]:
  """Returns the chunk that each chunk looks back at, and whether it is another one."""
  index, live = jnp.arange(chunks), -(-n // size)[:, None]
  back = jnp.where(index == 0, jnp.maximum(live - 1, 0), index - 1)
  return back, back != index
