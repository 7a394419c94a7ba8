"""BigBird: each block of tokens sees its neighbours, a few random blocks, the first and the last. State: none.

Zaheer et al. 2020, arXiv:2007.14062, in blocks as in app. D. Theirs: b -> block, w -> window, r -> random.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from attention.efficient.unordered import softmax
from kernels import dispatch, documents
from kernels.inputs import compute_dtype
from layers import buffer, heads, history
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one
from mistake import Mistake


class BigBird(Mixer):
  """y_t = softmax_s(q_t . k_s / sqrt(k)) v_s for each head, over the s in blocks that t's block sees     sec. 2

  and W_o of all y. A document is cut into blocks, of which the last may be shorter. A block sees itself and its
  neighbours, the first block, the last, and `random` of the others; the first and the last see all. Departs: the random
  blocks are drawn once, at initialisation, for each head: those with the highest entries of a random table, which is
  kept in the collection "buffers" and not trained.

  Attributes:
    heads: the largest divisor of the width not above 8, if not given.
    block: tokens in a block.
    window: consecutive blocks, centred on its own, that a block sees; an odd number.
    random: random blocks that a block sees.
    max_len: the longest sequence, which sets the size of the table.
    bias: whether the four linear maps have biases.
  Raises:
    ValueError: when called, a sequence is longer than `max_len`.
  """

  width: int
  heads: int | None = None
  block: int = 64
  window: int = 3
  random: int = 3
  max_len: int = 4096
  bias: bool = False

  STATE = "none"

  @nn.nowrap
  def check(self) -> None:
    heads.count(self)
    at_least_one(self, "block", "window", "max_len")
    if self.window % 2 == 0:
      raise Mistake(f"BigBird: window={self.window}; it must be odd, as many blocks to either side")
    if self.random < 0:
      raise Mistake(f"BigBird: random={self.random}; it must not be negative")

  def setup(self):
    count, blocks = heads.count(self), -(-self.max_len // self.block)
    self.qkv = heads.Heads(self.width, count, bias=self.bias)
    self.priority = buffer(
      self, "priority", nn.initializers.uniform(1.0), (count, blocks, blocks), ("heads", None, None)
    )

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    history.require("BigBird", x.shape[1], self.max_len)
    whole = functools.partial(_whole, self.block, self.window // 2, self.random)
    return self.qkv.out(documents.each(whole, self.priority, self.qkv(x), **where.masks))


def _whole(size: int, reach: int, random: int, priority, tokens, lengths) -> Float[Array, "b t h k"]:
  b, t = tokens[0].shape[:2]
  wide = compute_dtype(*tokens)
  q, k, v = (_blocks(z.astype(wide), size) for z in tokens)
  q, blocks = q * q.shape[-1] ** -0.5, q.shape[2]
  n = jnp.full(b, t, jnp.int32) if lengths is None else lengths
  live = -(-n // size)
  seen, counts = _seen(priority[:, :blocks, :blocks], live, reach, random)  # "b h i m"
  take = jax.vmap(jax.vmap(lambda z, index: z[index]))
  inside = seen[..., None] * size + jnp.arange(size) < n[:, None, None, None, None]
  y = _attend(q, take(k, seen), take(v, seen), counts[..., None] & inside)
  ends = jnp.stack([jnp.zeros_like(live), jnp.maximum(live - 1, 0)], axis=1)
  ends = jnp.broadcast_to(ends[:, None], (b, q.shape[1], 2))
  every = jnp.arange(blocks * size).reshape(1, blocks, size) < n[:, None, None, None, None]
  whole = _attend(take(q, ends), k[:, :, None], v[:, :, None], every)
  index = jnp.arange(blocks)[:, None, None]
  last = (live - 1)[:, None, None, None, None]
  y = jnp.where(index == 0, whole[:, :, :1], jnp.where(index == last, whole[:, :, 1:], y))
  return jnp.moveaxis(y.reshape(b, y.shape[1], -1, y.shape[-1])[:, :, :t], 1, 2).astype(tokens[2].dtype)


def _blocks(z: Float[Array, "b t h k"], size: int) -> Float[Array, "b h i c k"]:
  z = jnp.moveaxis(jnp.pad(z, ((0, 0), (0, -z.shape[1] % size), (0, 0), (0, 0))), 1, 2)
  return z.reshape(*z.shape[:2], -1, size, z.shape[-1])


def _seen(
  priority: Float[Array, "h i i"], live: Int[Array, "b"], reach: int, random: int
) -> tuple[Int[Array, "b h i m"], Bool[Array, "b h i m"]]:
  """Returns indices of the blocks that each block sees, each at most once, and a mask of the entries that count."""
  (h, blocks, _), b = priority.shape, live.shape[0]
  i, last, j = jnp.arange(blocks)[:, None], (live - 1)[:, None, None], jnp.arange(blocks)
  near, ends = i + jnp.arange(-reach, reach + 1), jnp.concatenate([jnp.zeros_like(last), last], axis=2)
  others = (jnp.abs(i - j) > reach) & (j > 0) & (j < last)
  best = lambda wish: tuple(jax.lax.top_k(wish, min(random, blocks)))
  # each device for its own rows: XLA would have all of them everywhere
  chances, chosen = dispatch.shard(best, ("b h x y",), ("b h x y",) * 2)(jnp.where(others[:, None], priority, -1))
  spread = lambda z: jnp.broadcast_to(z, (b, h, blocks, z.shape[-1]))
  seen = [spread(near), spread(ends[:, None]), chosen]
  counts = [((near >= 0) & (near <= last))[:, None], (jnp.abs(i - ends) > reach)[:, None], chances >= 0]
  return jnp.clip(jnp.concatenate(seen, axis=3), 0, blocks - 1), jnp.concatenate(list(map(spread, counts)), axis=3)


def _attend(
  q: Float[Array, "b h i c k"],
  k: Float[Array, "b h j m s k"],
  v: Float[Array, "b h j m s p"],
  see: Bool[Array, "b g j m s"],
) -> Float[Array, "b h i c p"]:
  """Returns attention of each block of queries to m blocks of keys; j is i, or 1 where all blocks see the same keys."""
  k, v = (z.reshape(*z.shape[:3], -1, z.shape[-1]) for z in (k, v))
  scores = jnp.einsum("...ck,...sk->...cs", q, k)
  weights, _ = softmax(scores, see.reshape(*see.shape[:3], 1, -1))
  return jnp.einsum("...cs,...sp->...cp", weights, v)
