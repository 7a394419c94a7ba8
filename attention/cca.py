"""Compressed convolutional attention: few queries and keys, mixed by convolutions. State: grows (with a window: that).

Figliolia et al. 2025, arXiv:2510.04476, as Zaya has it in transformers (`models/zaya`). Theirs: cca_time0 and
cca_time1 -> taps and head_taps, temp -> temperature.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from attention import cache
from kernels.attention import attention
from kernels.attention.step import attention_step
from layers import Dense, ShortConv, param
from layers.choices import one_of
from layers.initializers import uniform_fan_in
from layers.mixer import Mixer, Where
from layers.positions import LAYOUTS, rope, turned
from layers.rope_scaling import amplitude, fixed, frequencies
from layers.sizes import above_zero, at_least_one
from layers.token_shift import token_shift
from mistake import Mistake


class State(NamedTuple):
  cache: cache.Cache  # kept: "k", turned, and "v"
  taps: Float[Array, "b w e"]  # float32; the last queries and keys before the first convolution
  mixed: Float[Array, "b v e"]  # the last ones after it, the newest first
  last: Float[Array, "b p"]  # the values that the next token takes from this one


class Projected(NamedTuple):
  """Queries, keys and values of tokens, and the parts of the state after them."""

  q: Float[Array, "b t h k"]
  k: Float[Array, "b t g k"]
  v: Float[Array, "b t g k"]
  taps: Float[Array, "b w e"]
  mixed: Float[Array, "b v e"]
  last: Float[Array, "b p"]


class CCA(Mixer):
  """y_t = W_o concat_i(sum_s softmax_s(R_t q_ti . R_s k_s / sqrt(size)) v_s)     sec. 3

  [q, k] = C_2 C_1 [W_q x, W_k x] + r, with C_1 a causal convolution by channel and C_2 one by head, each with a bias,
  and r the mean of W_q x and the head's W_k x for queries, and its mean over the queries of a head for keys. Both are
  scaled to length sqrt(size), and the keys by a temperature a head. v = [W_v x_t, W_v' x_{t-1}], cut into heads.
  Departs: nothing; before a document all inputs of C_1 are 0.

  Attributes:
    heads: the width over 128, and at least 1, if not given. kv_heads: `heads` if not given.
    head_size: width/heads if not given.
    taps, head_taps: of C_1 and of C_2, the current token included.
    window: tokens that are seen, the current one included; all if not given.
    theta, layout, rotary, scaling: as in `Attention`.
    cache_dtype: as in `Attention`.
  """

  width: int
  heads: int | None = None
  kv_heads: int | None = None
  head_size: int | None = None
  taps: int = 2
  head_taps: int = 2
  window: int | None = None
  theta: float = 1e4
  layout: str = "half"
  rotary: float = 1.0
  scaling: Mapping[str, Any] | None = None
  cache_dtype: str = "float32"

  @property
  def STATE(self) -> str:
    """'window' with a window, else 'grows'."""
    return "grows" if self.window is None else "window"

  def __post_init__(self):
    self.scaling = fixed(self.scaling)
    super().__post_init__()

  def setup(self):
    heads, groups, size = self._sizes
    dense = lambda features, axis: Dense(features, kernel_init=uniform_fan_in(), axes=("embed", axis))
    self.q_proj, self.k_proj = dense(heads * size, "heads"), dense(groups * size, "kv")
    self.v_proj, self.v_proj_before = dense(groups * size // 2, "kv"), dense(groups * size // 2, "kv")
    self.conv = ShortConv((heads + groups) * size, taps=self.taps, axis=None)
    shape = self.head_taps, heads + groups, size, size
    fan_in = uniform_fan_in(self.head_taps * size)
    self.head_conv = param(self, "head_conv", fan_in, shape, ("taps", None, None, None))
    self.head_bias = param(self, "head_bias", fan_in, shape[1:3], (None, None), decay=False)
    self.temperature = param(self, "temperature", nn.initializers.ones, (groups,), (None,))
    self.out_proj = Dense(self.width, kernel_init=uniform_fan_in(), axes=("heads", "embed"))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    """Empty slots for a document of `max_len` tokens, or for the window; those past `max_len` have NaN."""
    heads, groups, size = self._sizes
    slots = max_len if self.window is None else self.window
    channels = (heads + groups) * size
    return State(
      cache.empty(batch, slots, dict.fromkeys(("k", "v"), (groups, size)), self.cache_dtype),
      jnp.zeros((batch, self.taps - 1, channels)),
      jnp.zeros((batch, self.head_taps - 1, channels)),
      jnp.zeros((batch, groups * size // 2)),
    )

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    places = cache.locate(x, **where.masks)
    new = self._project(x, places, self.init_state(len(x), 1), where)
    segments: dict[str, Any] = {} if where.reset is None else dict(q_segment=places.segment, k_segment=places.segment)
    return self._out(attention(new.q, new.k, new.v, window=self.window, **segments))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    places, ring = cache.locate(x, state.cache, **where.masks), self.window is not None
    new = self._project(x, places, state, where)
    visible, after = cache.extend(
      state.cache, dict(k=new.k, v=new.v), places, ring=ring, packed=where.reset is not None
    )
    y = self._out(attention(new.q, **visible.kept, window=self.window, **cache.locations(places, visible)))
    y = y if ring else cache.nan_where_full(y, places, after)
    return y, State(after, new.taps, new.mixed, new.last)

  def mix_token(self, x, state: State, side):
    places, ring = cache.locate(x[:, None], state.cache), self.window is not None
    new = self._project(x[:, None], places, state, Where())
    after = cache.append(state.cache, dict(k=new.k, v=new.v), places, ring=ring)
    y = attention_step(
      (new.q[:, 0],),
      (after.kept["k"],),
      after.kept["v"],
      **cache.locations_of_one(places, after),
      scale=self._sizes[2] ** -0.5,
      window=self.window,
    )
    y = self._out(y[:, None])
    y = y if ring else cache.nan_where_full(y, places, after)
    return y[:, 0], State(after, new.taps, new.mixed, new.last)

  def _project(self, x: Float[Array, "b t d"], places: cache.Places, state: State, where: Where) -> Projected:
    heads, groups, size = self._sizes
    q, k = self.q_proj(x), self.k_proj(x)
    mixed, taps, after = self._convolved(jnp.concatenate([q, k], axis=-1), state, where)
    by_head = lambda z: z.reshape(*z.shape[:2], -1, size)
    shared = lambda z: jnp.repeat(z, heads // groups, axis=2)
    q_rest = (by_head(q) + shared(by_head(k))) / 2
    k_rest = jnp.mean(q_rest.reshape(*x.shape[:2], groups, heads // groups, size), axis=3)
    q = self._of_length(mixed[:, :, :heads] + q_rest)
    k = self._of_length(mixed[:, :, heads:] + k_rest) * self.temperature[:, None].astype(x.dtype)
    turn: dict[str, Any] = dict(theta=self.theta, layout=self.layout, share=self.rotary, scaling=self.scaling)
    turn["amplitude"] = amplitude(self.scaling)
    before, last = token_shift(self.v_proj_before(x), state.last, **where.masks)
    v = by_head(jnp.concatenate([self.v_proj(x), before], axis=-1))
    return Projected(rope(q, places.offset, **turn), rope(k, places.offset, **turn), v, taps, after, last)

  def _convolved(
    self, z: Float[Array, "b t e"], state: State, where: Where
  ) -> tuple[Float[Array, "b t h k"], Float[Array, "b w e"], Float[Array, "b v e"]]:
    """C_2 C_1 z by head, and the last inputs of both."""
    z, taps = self.conv(z, state.taps, **where.masks)
    # what C_1 makes of zeros is its bias, which is taken out of what is remembered: a document begins with zeros then
    bias = self.conv.bias.astype(z.dtype)
    z, kernel = z - bias, self.head_conv.astype(z.dtype)
    by_head = lambda z: z.reshape(*z.shape[:2], -1, self._sizes[2])
    constant = jnp.einsum("hk,whkl->hl", bias.reshape(kernel.shape[1:3]), kernel)
    y = jnp.einsum("bthk,hkl->bthl", by_head(z), kernel[-1]) + constant + self.head_bias.astype(z.dtype)
    after = []
    for lag in range(1, self.head_taps):
      z, last = token_shift(z, state.mixed[:, lag - 1], **where.masks)
      after.append(last)
      y = y + jnp.einsum("bthk,hkl->bthl", by_head(z), kernel[-1 - lag])
    return y, taps, jnp.stack(after, axis=1) if after else state.mixed

  def _of_length(self, z: Float[Array, "b t h k"]) -> Float[Array, "b t h k"]:
    wide = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    squares = jnp.sum(jnp.square(wide), axis=-1, keepdims=True)
    least = float(jnp.finfo(z.dtype).eps) ** 2
    return (wide * (self._sizes[2] ** 0.5 * jax.lax.rsqrt(jnp.maximum(squares, least)))).astype(z.dtype)

  def _out(self, y: Float[Array, "b t h k"]) -> Float[Array, "b t d"]:
    return self.out_proj(y.reshape(*y.shape[:2], -1))

  @property
  def _sizes(self) -> tuple[int, int, int]:
    """Heads, heads of keys and values, size of a head."""
    heads = self.heads or max(1, self.width // 128)
    return heads, self.kv_heads or heads, self.head_size or self.width // heads

  @nn.nowrap
  def check(self) -> None:
    one_of(self, layout=LAYOUTS, cache_dtype=cache.DTYPES)
    at_least_one(self, "width", "heads", "kv_heads", "head_size", "taps", "head_taps", "window")
    above_zero(self, "theta")
    heads, groups, size = self._sizes
    if self.head_size is None and self.width % heads:
      raise Mistake(f"CCA: heads={heads} does not divide width={self.width}")
    if heads % groups:
      raise Mistake(f"CCA: kv_heads={groups} does not divide heads={heads}")
    if groups * size % 2:
      raise Mistake(f"CCA: kv_heads={groups} of size {size} have an odd number of channels, not two halves")
    if not 0 < self.rotary <= 1:
      raise Mistake(f"CCA: rotary={self.rotary} is a share of a head's entries; it must be in (0, 1]")
    pairs = turned(size, self.rotary)
    if pairs % 2 or not pairs:
      raise Mistake(f"CCA: rotary={self.rotary} of heads of size {size} turns {pairs} entries, which must be pairs")
    frequencies(pairs, self.theta, self.scaling)
