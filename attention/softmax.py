"""Softmax attention with rotary or no positions and shared keys. State: grows (a window's, with `window`).

Vaswani et al. 2017, arXiv:1706.03762; grouped keys: Ainslie et al. 2023, arXiv:2305.13245.
"""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels.attention import MASKS, attention
from layers import Dense
from layers.lengths import blank_past
from layers.positions import rope
from layers.sizes import at_least_one

POSITIONS = ("none", "rope")


class State(NamedTuple):
  """Keys and values of the current document, its token i in slot i, or in slot i modulo the window.

  Other slots may hold tokens of earlier documents.
  """

  k: Float[Array, "b s g k"]  # turned already, if positions are rotary
  v: Float[Array, "b s g p"]
  segment: Int[Array, "b s"]  # the document, named by the index of its first token; -1 in empty slots
  position: Int[Array, "b s"]  # index of the token in the row
  consumed: Int[Array, "b"]  # tokens so far
  start: Int[Array, "b"]  # index of the current document's first token


class Attention(nn.Module):
  """y_t = W_o concat_i(sum_s softmax_s(q_ti . k_si / sqrt(k)) v_si) over the tokens s that t sees     sec. 3.2

  Rotary positions count from the start of the document. Departs: nothing.

  Attributes:
    heads: the largest divisor of the width not above 8 that leaves an even head size, if not given.
    kv_heads: heads of keys and values, each shared by heads/kv_heads queries; `heads` if not given.
    mask: "causal", or "full": every token of the document is seen, there is no state, and __call__ is all there is.
    position: "none" or "rope".
    theta: base of the rotary wavelengths.
    window: tokens that are seen, the current one included; all if not given. The state then holds no more than that and
      has no end; without it, a document longer than the `max_len` of `init_state` turns the row to NaN.
    bias: whether the four linear maps have biases.
  Raises:
    ValueError: heads do not divide the width, kv_heads do not divide the heads, rotary heads are odd, a window is below
      1 or stands beside mask="full", a name is unknown; `init_state`, `prefill` or `step` with mask="full".
  """

  width: int
  heads: int | None = None
  kv_heads: int | None = None
  mask: str = "causal"
  position: str = "none"
  theta: float = 1e4
  window: int | None = None
  bias: bool = False

  SLOW = ()
  SIDE = ()

  @property
  def STATE(self) -> str:
    """'none' with mask="full", 'window' with a window, else 'grows'."""
    if self.mask == "full":
      return "none"
    return "grows" if self.window is None else "window"

  def __post_init__(self):
    _check(self)
    super().__post_init__()

  def setup(self):
    heads, groups, size = self._sizes
    dense = lambda features, axes: Dense(features, use_bias=self.bias, axes=axes)
    self.q_proj = dense(heads * size, ("embed", "heads"))
    self.k_proj = dense(groups * size, ("embed", "kv"))
    self.v_proj = dense(groups * size, ("embed", "kv"))
    self.out_proj = dense(self.width, ("heads", "embed"))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    """Empty slots for a document of `max_len` tokens, or for the window."""
    self._require_state()
    _, groups, size = self._sizes
    slots = max_len if self.window is None else self.window
    kv = jnp.zeros((batch, slots, groups, size))
    empty, none = jnp.full((batch, slots), -1, jnp.int32), jnp.zeros((batch,), jnp.int32)
    return State(k=kv, v=kv, segment=empty, position=empty, consumed=none, start=none)

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b t d"]:
    """All tokens from an empty state; nothing is cached."""
    none = jnp.zeros(x.shape[:1], jnp.int32)
    q, tokens, _ = self._project(blank_past(x, lengths), none, none, reset, lengths)
    return blank_past(self._attend(q, tokens, tokens, packed=reset is not None or lengths is not None), lengths)

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
    self._require_state()
    t = x.shape[1]
    n = jnp.full(x.shape[:1], t, jnp.int32) if lengths is None else lengths.astype(jnp.int32)
    q, tokens, start = self._project(blank_past(x, lengths), state.consumed, state.start, reset, lengths)
    before = _Tokens(*state[:4])
    cache = self._write(before, tokens, start)
    # Several tokens may overwrite what the first of them still sees: a window's oldest, or an earlier document.
    overwrites = t > 1 and not (self.window is None and reset is None)
    y = self._attend(q, tokens, jax.tree.map(_append, before, tokens) if overwrites else cache, packed=True)
    if self.window is None:
      full = state.consumed + n - start > state.k.shape[1]
      y = jnp.where(full[:, None, None], jnp.nan, y)
    return blank_past(y, lengths), State(*cache, consumed=state.consumed + n, start=start)

  def step(
    self, x: Float[Array, "b d"], state: State, *, side: Mapping[str, Array] | None = None
  ) -> tuple[Float[Array, "b d"], State]:
    """One token."""
    y, state = self.prefill(x[:, None], state)
    return y[:, 0], state

  @property
  def _sizes(self) -> tuple[int, int, int]:
    """Heads, heads of keys and values, size of a head."""
    heads = self.heads or _derived_heads(self.width, self.kv_heads or 1)
    return heads, self.kv_heads or heads, self.width // heads

  @nn.nowrap
  def _require_state(self) -> None:
    if self.mask == "full":
      raise ValueError("Attention: mask='full' sees later tokens, so it has no state; call it, or use mask='causal'")

  def _project(
    self,
    x: Float[Array, "b t d"],
    consumed: Int[Array, "b"],
    start: Int[Array, "b"],
    reset: Bool[Array, "b t"] | None,
    lengths: Int[Array, "b"] | None,
  ) -> tuple[Float[Array, "b t h k"], "_Tokens", Int[Array, "b"]]:
    """Queries, the new tokens as the cache holds them, and where the last token's document started."""
    heads, groups, size = self._sizes
    split = lambda z, h: z.reshape(*z.shape[:2], h, size)
    q, k, v = split(self.q_proj(x), heads), split(self.k_proj(x), groups), split(self.v_proj(x), groups)
    here = jnp.ones(x.shape[:2], bool) if lengths is None else jnp.arange(x.shape[1]) < lengths[:, None]
    position = consumed[:, None] + jnp.arange(x.shape[1], dtype=jnp.int32)
    starts = start[:, None] if reset is None else jnp.where(reset & here, position, start[:, None])
    starts = jnp.broadcast_to(jax.lax.cummax(starts, axis=1), position.shape)
    if self.position == "rope":
      q, k = (rope(z, position - starts, theta=self.theta) for z in (q, k))
    last = jnp.max(starts, axis=1, initial=0)  # starts only rise, and there may be no token
    return q, _Tokens(k=k, v=v, segment=jnp.where(here, starts, -1), position=position), jnp.maximum(start, last)

  def _attend(self, q: Float[Array, "b t h k"], tokens: "_Tokens", seen: "_Tokens", *, packed: bool):
    """W_o softmax(q k) v; without documents and lengths no segments are compared."""
    y = attention(
      q,
      seen.k,
      seen.v,
      q_position=tokens.position,
      k_position=seen.position,
      q_segment=tokens.segment if packed else None,
      k_segment=seen.segment if packed else None,
      mask=self.mask,
      window=self.window,
    )
    return self.out_proj(y.reshape(*y.shape[:2], self.width))

  @nn.nowrap
  def _write(self, cache: "_Tokens", tokens: "_Tokens", start: Int[Array, "b"]) -> "_Tokens":
    """The cache with the new tokens of the last document, or as many of them as a window holds."""
    slots = cache.segment.shape[1]
    slot = tokens.position - start[:, None]
    keep = tokens.segment == start[:, None]
    if self.window is not None:
      keep &= slot >= jnp.max(slot, axis=1, keepdims=True, where=keep, initial=0) + 1 - slots
      slot = slot % slots
    slot = jnp.where(keep, slot, slots)
    rows = jnp.arange(slot.shape[0])[:, None]
    return jax.tree.map(lambda old, new: old.at[rows, slot].set(new.astype(old.dtype), mode="drop"), cache, tokens)


class _Tokens(NamedTuple):
  """The first four fields of State, of which there is one per token."""

  k: Float[Array, "b s g k"]
  v: Float[Array, "b s g p"]
  segment: Int[Array, "b s"]
  position: Int[Array, "b s"]


def _append(old: Array, new: Array) -> Array:
  return jnp.concatenate([old, new.astype(old.dtype)], axis=1)


def _derived_heads(width: int, multiple: int) -> int:
  fits = [h for h in range(1, min(8, width) + 1) if width % h == 0 and h % multiple == 0]
  if not fits:
    raise ValueError(f"Attention: no number of heads up to 8 divides width={width} and is a multiple of {multiple}")
  return max([h for h in fits if (width // h) % 2 == 0], default=max(fits))


def _check(module: Attention) -> None:
  for field, choices in (("mask", MASKS), ("position", POSITIONS)):
    if getattr(module, field) not in choices:
      raise ValueError(f"Attention: {field}={getattr(module, field)!r}; choose from {list(choices)}")
  at_least_one(module, "heads", "kv_heads", "window")
  heads, groups, size = module._sizes
  if module.width % heads:
    raise ValueError(f"Attention: heads={heads} does not divide width={module.width}")
  if heads % groups:
    raise ValueError(f"Attention: kv_heads={groups} does not divide heads={heads}")
  if module.position == "rope" and size % 2:
    raise ValueError(f"Attention: heads={heads} of width={module.width} have size {size}; position='rope' turns pairs")
  if module.mask == "full" and module.window is not None:
    raise ValueError(f"Attention: window={module.window} looks back only, so it needs mask='causal', not 'full'")
