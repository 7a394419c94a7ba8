"""Mega: gated attention over chunks, told about the past by a moving average.

State: window (grows without chunks, none if bidirectional).

Ma et al. 2022, arXiv:2209.10655. Theirs: d -> d, h -> state, z -> keys, v -> inner, c -> chunk, n -> t.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kernels.attention import WEIGHTS, attention
from layers import Dense, param
from layers.choices import one_of
from layers.mixer import Mixer, Where
from layers.positions import rope
from layers.sizes import at_least_one
from mistake import Mistake
from ssm.lti import chunks, moving_average

POSITIONS = ("rotary", "simple")


class State(NamedTuple):
  """The state of one layer: token i of the current chunk in slot i, and zeros in the slots after the last token."""

  h: Float[Array, "b d n"]  # float32
  k: Float[Array, "b s k"]
  v: Float[Array, "b s e"]
  length: Int[Array, "b"]  # tokens of the document so far


class Mega(Mixer):
  """h_t = (1 - p a) h_{t-1} + p beta x_t,  m_t = silu(gamma . h_t / sqrt(n) + omega x_t)     eqs. (2), (3)

  for each channel, with p = sigmoid(alpha) and a = sigmoid(delta); then, with q and k from silu(W_z m) by scale and
  shift, attention over v = silu(W_v x), gated by r and u (eqs. (6) to (13)):
  c = silu(W_h m + U_h (r softmax(q . k / sqrt(k) + b) v)),  y = u (c - x).
  The block adds x: under a norm_position of "post" the layer is the paper's, x + u (c - x). Departs: with "pre", u
  stands between c and the x that the mixer sees, which is normalised; the authors' code has the one that is not.

  Attributes:
    state: n, numbers in each channel's average.
    keys: k, size of queries and keys.
    inner: size of values; twice the width if not given.
    chunk: tokens that attend to each other, counted from the start of the document; None: the whole document, and then
      one that is longer than the `max_len` of `init_state` turns to NaN.
    position: b by distance, "rotary", (R_t b_q) . (R_s b_k) with rotations R, or "simple", one number for each distance
      within a chunk.
    weights: "softmax", or a function f of each score by itself, f(q . k / s + b) with s the number of tokens seen:
      "relu2" or "laplace" (`kernels.attention.weights`).
    bidirectional: tokens see all of their chunk, and m has a second average, of what comes.
  """

  width: int
  state: int = 16
  keys: int = 64
  inner: int | None = None
  chunk: int | None = 128
  position: str = "rotary"
  weights: str = "softmax"
  bidirectional: bool = False

  @property
  def STATE(self) -> str:
    """Is none if bidirectional; a window with chunks; else it grows."""
    if self.bidirectional:
      return "none"
    return "grows" if self.chunk is None else "window"

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "state", "keys", "inner", "chunk")
    one_of(self, position=POSITIONS, weights=WEIGHTS)
    if self.position == "rotary" and self.keys % 2:
      raise Mistake(f"Mega: keys={self.keys} is odd; position='rotary' turns pairs")
    if self.position == "simple" and self.chunk is None:
      raise Mistake("Mega: position='simple' has a number for each distance within a chunk; set chunk")

  def setup(self):
    normal, zeros, small = nn.initializers.normal, nn.initializers.zeros, nn.initializers.normal(0.02)
    signs = lambda key, shape, dtype: small(key, shape, dtype) + (-1.0) ** jnp.arange(self.state)
    ways, axes = ((2,), (None,)) if self.bidirectional else ((), ())
    by_state = lambda name, init, slow=False: param(
      self, name, init, (*ways, self.width, self.state), (*axes, "embed", "state"), slow=slow
    )
    self.alpha, self.delta = (by_state(name, normal(0.2), slow=True) for name in ("alpha", "delta"))
    self.beta, self.gamma = by_state("beta", signs), by_state("gamma", normal(1.0))
    self.omega = param(self, "omega", normal(1.0), (self.width,), ("embed",))
    dense = lambda features, axes: Dense(features, use_bias=True, kernel_init=small, axes=axes)
    self.v_proj = dense(self._inner, ("embed", "inner"))
    self.m_proj = dense(2 * self.width + self.keys + self._inner, ("embed", "inner"))
    self.h_proj = dense(self.width, ("inner", "embed"))
    self.qk_scale = param(self, "qk_scale", small, (2, self.keys), (None, None), decay=False)
    self.qk_shift = param(self, "qk_shift", zeros, (2, self.keys), (None, None), decay=False)
    distances = 2 * (self.chunk or 1) - 1 if self.bidirectional else self.chunk
    shape = (2, self.keys) if self.position == "rotary" else (distances,)
    self.bias = param(self, "bias", small, shape, (None,) * len(shape), decay=False)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    self._require_state()
    slots = self.chunk or max_len
    return State(
      h=jnp.zeros((batch, self.width, self.state)),
      k=jnp.zeros((batch, slots, self.keys)),
      v=jnp.zeros((batch, slots, self._inner)),
      length=jnp.zeros((batch,), jnp.int32),
    )

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    none = jnp.zeros(x.shape[:1], jnp.int32)
    if self.bidirectional:
      m = moving_average.from_both_sides(x, self._coefficients(), **where.masks)
    else:
      empty = jnp.zeros((x.shape[0], self.width, self.state), self.alpha.dtype)
      m, _ = moving_average.from_the_past(x, empty, self._coefficients(), **where.masks)
    (q, k, v), gates = self._project(x, m)
    places, _ = chunks.places(none, x.shape[1], self.chunk, **where.masks)
    return self._gate(x, gates, self._attend(q, k, v, places, places))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    m, h = moving_average.from_the_past(x, state.h, self._coefficients(), **where.masks)
    (q, k, v), gates = self._project(x, m)
    places, length = chunks.places(state.length, x.shape[1], self.chunk, **where.masks)
    cached = chunks.cached(state.length, state.k.shape[1], self.chunk)
    both = chunks.Places(*map(chunks.append, cached, places))
    y = self._gate(x, gates, self._attend(q, chunks.append(state.k, k), chunks.append(state.v, v), places, both))
    if self.chunk is None:
      y = jnp.where((places.slot >= state.k.shape[1])[..., None], jnp.nan, y)
    k, v = (chunks.write(old, new, places) for old, new in ((state.k, k), (state.v, v)))
    return y, State(h=h, k=k, v=v, length=length)

  @property
  def _inner(self) -> int:
    return self.inner or 2 * self.width

  @nn.nowrap
  def no_state(self) -> str:
    return "bidirectional=True sees later tokens, so it has no state; call it"

  def _coefficients(self) -> moving_average.Average:
    return moving_average.Average(self.alpha, self.delta, self.beta, self.gamma)

  def _project(
    self, x: Float[Array, "b t d"], m: Float[Array, "b t d"]
  ) -> tuple[tuple[Float[Array, "b t _"], ...], tuple[Float[Array, "b t _"], ...]]:
    """Returns queries, keys and values, and the gates u, r and W_h m; the argument m holds the averages gamma . h."""
    m = jax.nn.silu(m + self.omega * x).astype(x.dtype)
    ends = np.cumsum([self.width, self.keys, self._inner])
    u, z, r, c = jnp.split(self.m_proj(m), ends, axis=-1)
    qk = jax.nn.silu(z)[..., None, :] * self.qk_scale + self.qk_shift
    q, k = jnp.moveaxis(qk.astype(x.dtype), -2, 0)
    return (q, k, jax.nn.silu(self.v_proj(x))), (jax.nn.sigmoid(u), jax.nn.silu(r), c)

  def _gate(self, x: Float[Array, "b t d"], gates: tuple[Float[Array, "b t _"], ...], y: Float[Array, "b t e"]):
    """Returns the output u (c - x)."""
    u, r, c = gates
    return u * (jax.nn.silu(c + self.h_proj(r * y)) - x)

  def _attend(
    self,
    q: Float[Array, "b t k"],
    k: Float[Array, "b s k"],
    v: Float[Array, "b s e"],
    places: chunks.Places,
    of: chunks.Places,
  ) -> Float[Array, "b t e"]:
    """Returns attention within chunks. The bias b is a product of two vectors, which queries and keys carry along."""
    if self.weights == "softmax":
      share = q * self.keys**-0.5
    else:
      tokens = chunks.sizes(places) if self.bidirectional else places.slot + 1
      share = q / tokens[..., None].astype(jnp.promote_types(q.dtype, jnp.float32))
    q = jnp.concatenate([share.astype(q.dtype), self._bias(places.slot, 0).astype(q.dtype)], axis=-1)
    k = jnp.concatenate([k, self._bias(of.slot, 1).astype(k.dtype)], axis=-1)
    y = attention(
      *(z[:, :, None] for z in (q, k, v)),
      q_position=places.slot,
      k_position=of.slot,
      q_segment=places.segment,
      k_segment=of.segment,
      mask="full" if self.bidirectional else "causal",
      scale=1.0,
      weights=self.weights,
    )
    return y[:, :, 0]

  def _bias(self, slot: Int[Array, "b t"], side: int) -> Float[Array, "b t k"]:
    """Returns the vectors whose product is b, those of queries (`side` 0) or those of keys (1)."""
    if self.position == "rotary":
      b = jnp.broadcast_to(self.bias[side], (*slot.shape, 1, self.keys))
      return rope(b, slot)[:, :, 0]
    own = jnp.arange(self.chunk)
    if side == 1:
      return (slot[..., None] == own).astype(self.bias.dtype)
    distance = slot[..., None] - own
    if self.bidirectional:
      return self.bias[distance + own.size - 1]
    return jnp.where(distance >= 0, self.bias[jnp.maximum(distance, 0)], 0)
