"""Mega: gated attention over chunks, told about the past by a moving average. State: window (grows without chunks).

Ma et al. 2022, arXiv:2209.10655. Theirs: d -> d, h -> state, z -> keys, v -> inner, c -> chunk, n -> t.
"""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from kernels import inputs
from kernels.attention import attention
from kernels.linear_scan import linear_scan
from layers import Dense, history, param
from layers.lengths import blank_past
from layers.positions import rope

POSITIONS = ("rotary", "simple")


class State(NamedTuple):
  """What one layer remembers: token i of the current chunk in slot i, zeros in later slots."""

  h: Float[Array, "b d n"]  # float32
  k: Float[Array, "b s k"]
  v: Float[Array, "b s e"]
  length: Int[Array, "b"]  # tokens of the document so far


class Mega(nn.Module):
  """h_t = (1 - p a) h_{t-1} + p beta x_t,  m_t = silu(gamma . h_t / sqrt(n) + omega x_t)     eqs. (2), (3)

  for each channel, with p = sigmoid(alpha) and a = sigmoid(delta); then, with q and k from silu(W_z m) by scale and
  shift, attention over v = silu(W_v x), gated by r and u (eqs. (6) to (13)):
  c = silu(W_h m + U_h (r softmax(q . k / sqrt(k) + b) v)),  y = u (c - x).
  The block adds x: under a norm_position of "post" the layer is the paper's, x + u (c - x). Departs: with "pre", u
  stands between c and the x that the mixer sees, which is normalised; the authors' code has the one that is not. Their
  other attention functions (relu^2, laplace) and the two-sided average are not offered.

  Attributes:
    state: n, numbers in each channel's average.
    keys: k, size of queries and keys.
    inner: size of values; twice the width if not given.
    chunk: tokens that attend to each other, counted from the start of the document; None: the whole document, and then
      one that is longer than the `max_len` of `init_state` turns to NaN.
    position: b by distance, "rotary", (R_t b_q) . (R_s b_k) with rotations R, or "simple", one number for each distance
      within a chunk.
  Raises:
    ValueError: a size is below 1, a name is unknown, "rotary" has odd `keys`, "simple" has no `chunk`.
  """

  width: int
  state: int = 16
  keys: int = 64
  inner: int | None = None
  chunk: int | None = 128
  position: str = "rotary"

  SLOW = ("alpha", "delta")
  SIDE = ()

  @property
  def STATE(self) -> str:
    """'window' with chunks, else 'grows'."""
    return "grows" if self.chunk is None else "window"

  def __post_init__(self):
    _check(self)
    super().__post_init__()

  def setup(self):
    normal, zeros, small = nn.initializers.normal, nn.initializers.zeros, nn.initializers.normal(0.02)
    signs = lambda key, shape, dtype: small(key, shape, dtype) + (-1.0) ** jnp.arange(self.state)
    by_state = lambda name, init: param(self, name, init, (self.width, self.state), ("embed", "state"))
    self.alpha, self.delta = by_state("alpha", normal(0.2)), by_state("delta", normal(0.2))
    self.beta, self.gamma = by_state("beta", signs), by_state("gamma", normal(1.0))
    self.omega = param(self, "omega", normal(1.0), (self.width,), ("embed",))
    dense = lambda features, axes: Dense(features, use_bias=True, kernel_init=small, axes=axes)
    self.v_proj = dense(self._inner, ("embed", "inner"))
    self.m_proj = dense(2 * self.width + self.keys + self._inner, ("embed", "inner"))
    self.h_proj = dense(self.width, ("inner", "embed"))
    self.qk_scale = param(self, "qk_scale", small, (2, self.keys), (None, None))
    self.qk_shift = param(self, "qk_shift", zeros, (2, self.keys), (None, None))
    shape = (2, self.keys) if self.position == "rotary" else (self.chunk,)
    self.bias = param(self, "bias", small, shape, (None,) * len(shape))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    """Zeros, and empty slots for a chunk or for a document of `max_len` tokens."""
    slots = self.chunk or max_len
    return State(
      h=jnp.zeros((batch, self.width, self.state)),
      k=jnp.zeros((batch, slots, self.keys)),
      v=jnp.zeros((batch, slots, self._inner)),
      length=jnp.zeros((batch,), jnp.int32),
    )

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b t d"]:
    """All tokens from an empty state; nothing is cached."""
    x = blank_past(x, lengths)
    empty = self.init_state(x.shape[0], 1)
    m, _ = self._average(x, empty.h, reset, lengths)
    (q, k, v), gates = self._project(x, m)
    at, _ = self._places(empty.length, x.shape[1], reset, lengths)
    return blank_past(self._gate(x, gates, self._attend(q, k, v, at, at)), lengths)

  def prefill(
    self,
    x: Float[Array, "b t d"],
    state: State,
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> tuple[Float[Array, "b t d"], State]:
    """All tokens from `state`."""
    x = blank_past(x, lengths)
    m, h = self._average(x, state.h, reset, lengths)
    (q, k, v), gates = self._project(x, m)
    at, length = self._places(state.length, x.shape[1], reset, lengths)
    cached = _Places(*jnp.broadcast_arrays(jnp.arange(state.k.shape[1], dtype=jnp.int32), self._cached(state)))
    seen = _Places(*map(_append, cached, at))
    y = self._gate(x, gates, self._attend(q, _append(state.k, k), _append(state.v, v), at, seen))
    if self.chunk is None:
      y = jnp.where((at.slot >= state.k.shape[1])[..., None], jnp.nan, y)
    return blank_past(y, lengths), State(h=h, k=_write(state.k, k, at), v=_write(state.v, v, at), length=length)

  def step(
    self, x: Float[Array, "b d"], state: State, *, side: Mapping[str, Array] | None = None
  ) -> tuple[Float[Array, "b d"], State]:
    """One token."""
    y, state = self.prefill(x[:, None], state)
    return y[:, 0], state

  @property
  def _inner(self) -> int:
    return self.inner or 2 * self.width

  def _average(
    self,
    x: Float[Array, "b t d"],
    h: Float[Array, "b d n"],
    reset: Bool[Array, "b t"] | None,
    lengths: Int[Array, "b"] | None,
  ) -> tuple[Float[Array, "b t d"], Float[Array, "b d n"]]:
    """m, and the averages after the last token."""
    p = jax.nn.sigmoid(self.alpha)
    decay = 1 - p * jax.nn.sigmoid(self.delta)
    flat = lambda z: z.reshape(*z.shape[:-2], self.width * self.state)
    averages, last = linear_scan(flat(decay), flat(p * self.beta * x[..., None]), flat(h), reset=reset, lengths=lengths)
    averages = averages.reshape(*x.shape, self.state)
    y = jnp.einsum("btdn,dn->btd", averages, self.gamma * self.state**-0.5) + self.omega * x
    return jax.nn.silu(y).astype(x.dtype), last.reshape(h.shape)

  def _project(
    self, x: Float[Array, "b t d"], m: Float[Array, "b t d"]
  ) -> tuple[tuple[Float[Array, "b t _"], ...], tuple[Float[Array, "b t _"], ...]]:
    """Queries, keys and values; and u, r and W_h m."""
    ends = np.cumsum([self.width, self.keys, self._inner])
    u, z, r, c = jnp.split(self.m_proj(m), ends, axis=-1)
    qk = jax.nn.silu(z)[..., None, :] * self.qk_scale + self.qk_shift
    q, k = jnp.moveaxis(qk.astype(x.dtype), -2, 0)
    return (q, k, jax.nn.silu(self.v_proj(x))), (jax.nn.sigmoid(u), jax.nn.silu(r), c)

  def _gate(self, x: Float[Array, "b t d"], gates: tuple[Float[Array, "b t _"], ...], y: Float[Array, "b t e"]):
    """u (c - x)."""
    u, r, c = gates
    return u * (jax.nn.silu(c + self.h_proj(r * y)) - x)

  def _attend(
    self,
    q: Float[Array, "b t k"],
    k: Float[Array, "b s k"],
    v: Float[Array, "b s e"],
    at: "_Places",
    of: "_Places",
  ) -> Float[Array, "b t e"]:
    """The bias is a product of vectors that depend on the slots, so that queries and keys can carry it."""
    q = jnp.concatenate([q * self.keys**-0.5, self._bias(at.slot, 0).astype(q.dtype)], axis=-1)
    k = jnp.concatenate([k, self._bias(of.slot, 1).astype(k.dtype)], axis=-1)
    y = attention(
      *(z[:, :, None] for z in (q, k, v)),
      q_position=at.slot,
      k_position=of.slot,
      q_segment=at.segment,
      k_segment=of.segment,
      scale=1.0,
    )
    return y[:, :, 0]

  def _bias(self, slot: Int[Array, "b t"], side: int) -> Float[Array, "b t k"]:
    """Vectors whose product is b: `side` 0 for queries, 1 for keys."""
    if self.position == "rotary":
      b = jnp.broadcast_to(self.bias[side], (*slot.shape, 1, self.keys))
      return rope(b, slot)[:, :, 0]
    own = jnp.arange(self.chunk)
    if side == 1:
      return (slot[..., None] == own).astype(self.bias.dtype)
    distance = slot[..., None] - own
    return jnp.where(distance >= 0, self.bias[jnp.maximum(distance, 0)], 0)

  @nn.nowrap
  def _places(
    self, length: Int[Array, "b"], t: int, reset: Bool[Array, "b t"] | None, lengths: Int[Array, "b"] | None
  ) -> tuple["_Places", Int[Array, "b"]]:
    """Slots of new tokens and the chunks they belong to, 0 being the one in the cache; the length of the document."""
    place, length = history.places(length, t, reset=reset, lengths=lengths)
    slot = place if self.chunk is None else place % self.chunk
    segment = jnp.cumsum(slot == 0, axis=1, dtype=jnp.int32)
    if lengths is not None:
      segment = jnp.where(inputs.valid(lengths, t), segment, -1)
    return _Places(slot, segment), length

  @nn.nowrap
  def _cached(self, state: State) -> Int[Array, "b s"]:
    """The chunk of each slot: 0, or -1 in empty ones."""
    filled = state.length if self.chunk is None else state.length % self.chunk
    return jnp.where(jnp.arange(state.k.shape[1]) < filled[:, None], 0, -1).astype(jnp.int32)


class _Places(NamedTuple):
  """Where tokens stand in their chunks, and in which."""

  slot: Int[Array, "b t"]
  segment: Int[Array, "b t"]


def _append(old: Array, new: Array) -> Array:
  return jnp.concatenate([old, new.astype(old.dtype)], axis=1)


def _write(old: Float[Array, "b s k"], new: Float[Array, "b t k"], at: _Places) -> Float[Array, "b s k"]:
  """The cache with the tokens of the last chunk, and of no other."""
  last = jnp.max(at.segment, axis=1, initial=0, keepdims=True)
  slot = jnp.where(at.segment == last, at.slot, old.shape[1])
  kept = jnp.where((last > 0)[..., None], 0, old)
  return kept.at[jnp.arange(old.shape[0])[:, None], slot].set(new.astype(old.dtype), mode="drop")


def _check(module: Mega) -> None:
  for field in ("width", "state", "keys", "inner", "chunk"):
    if getattr(module, field) is not None and getattr(module, field) < 1:
      raise ValueError(f"Mega: {field}={getattr(module, field)}; it must be at least 1")
  if module.position not in POSITIONS:
    raise ValueError(f"Mega: position={module.position!r}; choose from {list(POSITIONS)}")
  if module.position == "rotary" and module.keys % 2:
    raise ValueError(f"Mega: keys={module.keys} is odd; position='rotary' turns pairs")
  if module.position == "simple" and module.chunk is None:
    raise ValueError("Mega: position='simple' has a number for each distance within a chunk; set chunk")
