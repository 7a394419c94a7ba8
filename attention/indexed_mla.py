"""Latent attention to the tokens that an indexer chooses: DeepSeek's sparse attention, by pools. State: grows.

DeepSeek-AI 2025, arXiv:2512.02556, sec. 2.1 (V3.2), with pools of tokens as in `models/glm5_next` of transformers.
Theirs: d -> d, H^I -> index_heads, d^I -> index_size, k -> chosen.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from attention import cache
from attention.mla import MLA, State
from kernels.attention.indexed import Index, indexed_attention
from layers import Dense, LayerNorm, param
from layers.mixer import Mixer
from layers.sizes import at_least_one
from mistake import Mistake


class IndexedMLA(MLA):
  """Attention as in `MLA` over the tokens of the chosen / pool best pools, and those after the last complete one.

  A pool's score is sum_i w_ti relu(q_ti . K) / sqrt(index_heads index_size) with q = W_q norm(W_DQ x_t), w = W_w x_t,
  and K = sum_s softmax_s(W_g x_s + P_s) * norm(W_k x_s) over its tokens s, entry by entry. Choosing has no gradient:
  the parameters of the indexer stay as they are. Departs: V3.2 trains them to match the attention's weights.

  Attributes:
    q_rank: as in `MLA`; the indexer reads the compressed queries.
    index_heads, index_size: heads of the indexer and entries of its keys.
    pool: tokens of a pool, counted from the start of the document.
    chosen: tokens of the chosen pools together, a multiple of `pool`. Up to so many tokens this is `MLA`.
  """

  q_rank: int | None = 1536
  index_heads: int = 32
  index_size: int = 128
  pool: int = 16
  chosen: int = 2048

  def setup(self):
    super().setup()
    self.index_q = Dense(self.index_heads * self.index_size, axes=(None, "heads"))
    self.index_k = Dense(self.index_size, axes=("embed", None))
    self.index_norm = LayerNorm(eps=1e-6, axis=None)
    self.index_weights = Dense(self.index_heads, axes=("embed", "heads"))
    self.index_gate = Dense(self.index_size, axes=("embed", None))
    self.P = param(self, "P", nn.initializers.zeros, (self.pool, self.index_size), (None, None), decay=False)

  def mix_token(self, x, state: State, side):
    # pools are made of several tokens, which the form for one does not know
    return Mixer.mix_token(self, x, state, side)

  def _project(self, x, offset):
    q, r, new = super()._project(x, offset)
    index = jnp.concatenate([self.index_norm(self.index_k(x)), self.index_gate(x)], axis=-1)
    return q, r, new | {"c": jnp.concatenate([new["c"], index[:, :, None].astype(x.dtype)], axis=-1)}

  def _attend(
    self, x, q, k, v, places: cache.Places, slots: cache.Tokens, *, packed: bool, apart: bool
  ) -> Float[Array, "b t h p"]:
    del apart
    index_q = self.index_q(self.q_norm(self.q_down(x))).reshape(*x.shape[:2], self.index_heads, -1)
    weights = self.index_weights(x) * (self.index_heads * self.index_size) ** -0.5
    key, gate = jnp.split(slots.kept["c"][:, :, 0, self.rank :], 2, axis=-1)
    index = Index(index_q, weights, (key, gate), self.pool, self._mean)
    return indexed_attention(
      q, k, v, index, **cache.locations(places, slots), scale=self._scale, chosen=self.chosen, packed=packed
    )

  def _mean(self, tokens, start: Int[Array, "b c"]) -> Float[Array, "b c k"]:
    """Returns the keys of pools: means of those of their tokens, weighed entry by entry."""
    del start
    key, gate = tokens
    return jnp.sum(jax.nn.softmax(gate + self.P, axis=2) * key, axis=2)

  @property
  def _kept(self) -> dict[str, tuple[int, int]]:
    """Returns what `MLA` remembers, with the indexer's key and gate after the latent vector."""
    return super()._kept | dict(c=(1, self.rank + 2 * self.index_size))

  @nn.nowrap
  def check(self) -> None:
    super().check()
    at_least_one(self, "index_heads", "index_size", "pool", "chosen")
    if self.q_rank is None:
      raise Mistake("IndexedMLA: q_rank=None; the indexer reads compressed queries, so give their size")
    if self.chosen % self.pool:
      raise Mistake(f"IndexedMLA: chosen={self.chosen} is no multiple of pool={self.pool}")
