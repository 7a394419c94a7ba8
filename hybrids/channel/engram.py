"""Vectors of n-grams, found in tables, weighed by how well they suit the residual streams. State: fixed.

Cheng et al. 2026, arXiv:2601.07372 (Engram), as in `models/qwen4_exp` of transformers. Theirs: e -> n, h -> x.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybrids.embed.ngrams import NGRAMS
from layers import Dense, RMSNorm, ShortConv
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one
from mistake import Mistake

LEAST = 1e-6  # of the size of a product, before its root is taken


class State(NamedTuple):
  taps: Float[Array, "b w e"]  # the last inputs of the convolution


class Engram(Mixer):
  """y_i = u_i + SiLU(conv(norm(u)))_i with u_i = sigmoid(s_i) W_V n for the streams x_i, side by side in x and in y.

  s_i = sign(c_i) sqrt(|c_i|), c_i = norm(x_i) . norm(W_K_i n) / sqrt(d), d being the width of a stream, and n the
  vector of the n-grams that end at the token, which the embedding `ngrams` offers in `side`; where there is none, n is
  0. The convolution is depthwise, its taps `dilation` tokens apart, and starts at 0. Departs: tokens are hashed as they
  are, without a map that makes one of several spellings.

  Attributes:
    streams: how many there are; the width is that of all together.
    size: entries of n; the width of a stream, if not given.
    number: of this layer among those of its kind, counted from 0: n is that part of what the embedding offers.
    taps: w of the convolution.
    dilation: tokens from one tap to the next; the tokens of the longest n-gram.
    norm_eps: the epsilon of the norms.
  Raises:
    ValueError: the streams do not divide the width, a size is below 1; when called, if the embedding has no such part.
  """

  width: int
  streams: int = 1
  size: int | None = None
  number: int = 0
  taps: int = 4
  dilation: int = 3
  norm_eps: float = 1e-6

  SIDE = (NGRAMS,)

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "streams", "size", "taps", "dilation")
    if self.number < 0:
      raise Mistake(f"Engram: number={self.number}; layers are counted from 0")
    if self.width % self.streams:
      raise Mistake(f"Engram: streams={self.streams} do not divide width={self.width}, that of all together")

  def setup(self):
    norm = lambda: RMSNorm(eps=self.norm_eps, groups=self.streams)
    self.k_proj, self.v_proj = Dense(self.width, axes=(None, "embed")), Dense(self._one, axes=(None, "embed"))
    self.q_norm, self.k_norm, self.conv_norm = norm(), norm(), norm()
    self.conv = self._conv()

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(self._conv(parent=None).init_taps(batch))

  def mix(self, x: Float[Array, "b t e"], state: State, where: Where) -> tuple[Float[Array, "b t e"], State]:
    u = self._weighed(x, where.side)
    y, taps = self.conv(self.conv_norm(u), state.taps, **where.masks)
    return u + jax.nn.silu(y), State(taps)

  def mix_token(
    self, x: Float[Array, "b e"], state: State, side: Mapping[str, Array]
  ) -> tuple[Float[Array, "b e"], State]:
    u = self._weighed(x, side)
    y, taps = self.conv.step(self.conv_norm(u), state.taps, activation="silu")
    return u + y, State(taps)

  def _weighed(self, x: Float[Array, "*b e"], side: Mapping[str, Array]) -> Float[Array, "*b e"]:
    n = self._part(x, side)
    apart = lambda z: z.reshape(*x.shape[:-1], self.streams, self._one)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    products = apart(self.q_norm(x)).astype(wide) * apart(self.k_norm(self.k_proj(n))).astype(wide)
    c = jnp.sum(products, axis=-1, keepdims=True) * self._one**-0.5
    s = jnp.sign(c) * jnp.sqrt(jnp.maximum(jnp.abs(c), LEAST))
    u = jax.nn.sigmoid(s).astype(x.dtype) * self.v_proj(n)[..., None, :]
    return u.reshape(x.shape)

  @nn.nowrap
  def _part(self, x: Float[Array, "*b e"], side: Mapping[str, Array]) -> Float[Array, "*b n"]:
    size = self.size or self._one
    if NGRAMS not in side:
      return jnp.zeros((*x.shape[:-1], size), x.dtype)
    everything, start = side[NGRAMS], self.number * size
    if everything.shape[-1] < start + size:
      raise Mistake(
        f"Engram: number={self.number} of size={size} is no part of the {everything.shape[-1]} entries that the "
        "embedding offers; give embed.sets and embed.size to match"
      )
    return everything[..., start : start + size].astype(x.dtype)

  @property
  def _one(self) -> int:
    return self.width // self.streams

  @nn.nowrap
  def _conv(self, **kwargs: Any) -> ShortConv:
    fields: dict[str, Any] = dict(taps=self.taps, dilation=self.dilation, use_bias=False, axis="embed")
    return ShortConv(self.width, kernel_init=nn.initializers.zeros, **fields, **kwargs)
