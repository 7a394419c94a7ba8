"""Softmax attention to the tokens that an indexer chooses, by blocks. State: grows.

As in `models/qwen4_exp` of transformers (QSA), after DeepSeek-AI 2025, arXiv:2512.02556, sec. 2.1. Theirs: n_heads ->
index_heads, head_dim -> index_size, compress_ratio -> pool, budget -> chosen.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from attention import cache
from attention.softmax import Attention, State
from kernels.attention.indexed import Index, indexed_attention
from kernels.gated_norm import inverse_root
from layers import Dense, RMSNorm, param
from layers.mixer import Mixer, Where
from layers.positions import rope, turned
from layers.rope_scaling import amplitude
from layers.sizes import at_least_one
from mistake import Mistake

# fields of `Attention` with the values that a choice of tokens leaves them
FIXED: dict[str, Any] = dict(mask="causal", window=None, softcap=None, persistent=0)


class IndexedSoftmax(Attention):
  """Attention as in `softmax` over the tokens of the chosen / pool best blocks, and those after the last complete one.

  A block of `pool` tokens has the score sum_i relu(q_ti . K) / sqrt(index_size) with q = R_t norm(W_q x_t) and
  K = R_s norm(mean of W_k x over its tokens), R_s being the rotation at its first token s. Choosing has no gradient:
  the parameters of the indexer stay as they are. Departs: nothing.

  Attributes:
    position: "rope", as in `softmax`; as many entries of the indexer's heads turn as of the others. Or "none".
    index_heads, index_size: heads of the indexer and entries of its keys, of which there is one a token.
    pool: tokens of a block, counted from the start of the document.
    chosen: tokens of the chosen blocks together, a multiple of `pool`. Up to so many tokens this is `softmax`.
  Raises:
    ValueError: as `softmax`; or `mask`, `window`, `softcap` or `persistent` is set, more entries turn than the
      indexer's heads have, or `pool` does not divide `chosen`.
  """

  position: str = "rope"
  index_heads: int = 4
  index_size: int = 128
  pool: int = 16
  chosen: int = 2048

  def setup(self):
    super().setup()
    self.index_q = Dense(self.index_heads * self.index_size, axes=("embed", "heads"))
    self.index_k = Dense(self.index_size, axes=("embed", None))
    self.index_q_norm = RMSNorm(eps=self.norm_eps, axis=None)
    # few tokens make no block, and a module that is not called has no parameters
    self.index_k_scale = param(self, "index_k_scale", nn.initializers.ones, (self.index_size,), (None,))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    """Empty slots for a document of `max_len` tokens; those past that have NaN."""
    _, groups, size = self._sizes
    shapes = dict(k=(groups, size), v=(groups, size + self._share))
    return cache.empty(batch, max_len, shapes, self.cache_dtype)

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t e"]:
    places = cache.locate(x, **where.masks)
    q, new = self.project(x, places.offset)
    tokens = cache.Tokens(new, places.segment, places.position)
    return self._choose(x, q, places, tokens, packed=where.reset is not None)

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t e"], State]:
    places, packed = cache.locate(x, state, **where.masks), where.reset is not None
    q, new = self.project(x, places.offset)
    visible, state = cache.extend(state, new, places, ring=False, packed=packed)
    return cache.nan_where_full(self._choose(x, q, places, visible, packed=packed), places, state), state

  def mix_token(self, x, state: State, side):
    # blocks are made of several tokens, which the form for one does not know
    return Mixer.mix_token(self, x, state, side)

  def project(
    self, x: Float[Array, "b t d"], offset: Int[Array, "b t"]
  ) -> tuple[Float[Array, "b t h k"], dict[str, Float[Array, "b t _ _"]]]:
    """Queries; keys and values as the cache holds them, with a share of the indexer's key after each value."""
    q, kv = super().project(x, offset)
    groups = self._sizes[1]
    index = jnp.pad(self.index_k(x), ((0, 0), (0, 0), (0, groups * self._share - self.index_size)))
    return q, kv | dict(v=jnp.concatenate([kv["v"], index.reshape(*x.shape[:2], groups, -1)], axis=-1))

  def _choose(
    self,
    x: Float[Array, "b t d"],
    q: Float[Array, "b t h k"],
    places: cache.Places,
    slots: cache.Tokens,
    *,
    packed: bool,
  ) -> Float[Array, "b t e"]:
    index_q = self.index_q_norm(self.index_q(x).reshape(*x.shape[:2], self.index_heads, -1))
    weights = jnp.full((*x.shape[:2], self.index_heads), self.index_size**-0.5, jnp.float32)
    k, v, size = slots.kept["k"], slots.kept["v"], self._sizes[2]
    index_k = v[..., size:].reshape(*v.shape[:2], -1)[..., : self.index_size]
    index = Index(self._turned(index_q, places.offset), weights, (index_k,), self.pool, self._mean)
    where, scale = cache.locations(places, slots), self.scale or size**-0.5
    y = indexed_attention(q, k, v[..., :size], index, **where, scale=scale, chosen=self.chosen, packed=packed)
    return self._out(x, y)

  def _mean(self, tokens, start: Int[Array, "b c"]) -> Float[Array, "b c k"]:
    """Returns the keys of blocks."""
    mean = jnp.mean(tokens[0], axis=2)
    mean *= self.index_k_scale * inverse_root(jnp.mean(jnp.square(mean), axis=-1, keepdims=True), self.norm_eps)
    return self._turned(mean[:, :, None], start)[:, :, 0]

  @nn.nowrap
  def _turned(self, z: Float[Array, "b t h k"], offset: Int[Array, "b t"]) -> Float[Array, "b t h k"]:
    if self.position == "none":
      return z
    turn: dict[str, Any] = dict(theta=self.theta, layout=self.layout, scaling=self.scaling)
    return rope(z, offset, **turn, share=self._entries / self.index_size, amplitude=amplitude(self.scaling))

  @property
  def _share(self) -> int:
    """Returns how many entries of the indexer's key stand after each value, as all groups share one key."""
    return -(-self.index_size // self._sizes[1])

  @property
  def _entries(self) -> int:
    """Returns how many entries of a head turn."""
    return turned(self._sizes[2], self.rotary)

  @nn.nowrap
  def check(self) -> None:
    super().check()
    at_least_one(self, "index_heads", "index_size", "pool", "chosen")
    for name, value in FIXED.items():
      if getattr(self, name) != value:
        raise Mistake(f"IndexedSoftmax: {name}={getattr(self, name)!r}; where tokens are chosen, it is {value!r}")
    if self.position not in ("rope", "none"):
      raise Mistake(f"IndexedSoftmax: position={self.position!r}; choose 'rope' or 'none'")
    if self.position == "rope" and self._entries > self.index_size:
      raise Mistake(f"IndexedSoftmax: index_size={self.index_size} is less than the {self._entries} entries that turn")
    if self.chosen % self.pool:
      raise Mistake(f"IndexedSoftmax: chosen={self.chosen} is no multiple of pool={self.pool}")
