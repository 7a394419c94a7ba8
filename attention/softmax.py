"""Softmax attention with shared keys and positions that scores know. State: grows (a window's, with `window`).

Vaswani et al. 2017, arXiv:1706.03762; grouped keys: Ainslie et al. 2023, arXiv:2305.13245.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from attention import cache
from attention.masked import Masked
from kernels.attention import MASKS, attention
from kernels.attention.step import attention_step
from kernels.attention.visible import EVERYONE
from layers import Dense, RMSNorm, param
from layers.choices import one_of
from layers.mixer import Where
from layers.positions import LAYOUTS, alibi_slopes, rope, turned, xpos_decays
from layers.rope_scaling import amplitude, fixed, frequencies
from layers.sizes import above_zero, at_least_one, at_least_zero
from mistake import Mistake

POSITIONS = ("none", "rope", "xpos", "alibi")
NORMS = ("none", "head", "all")
BIASES = ("none", "qkv", "out", "all")
GATES = ("none", "entry", "head")
CHOICES = {
  **{"mask": MASKS, "layout": LAYOUTS, "qk_norm": NORMS, "gate": GATES, "bias": BIASES, "cache_dtype": cache.DTYPES}
}

State = cache.Cache  # kept: "k", turned already if positions turn, and "v"


class Attention(Masked):
  """y_t = W_o concat_i(sum_s softmax_s(q_ti . k_si / sqrt(k)) v_si) over the tokens s that t sees     sec. 3.2

  Positions count from the start of the document. Learned and sinusoidal ones are the model's. Departs: nothing.

  Attributes:
    heads: the largest divisor of the width not above 8 that leaves pairs to turn, if not given.
    kv_heads: heads of keys and values, each shared by heads/kv_heads queries; `heads` if not given.
    head_size: k; width/heads if not given.
    mask: "causal", or "full": every token of the document is seen, there is no state, and __call__ is all there is.
    window: tokens that are seen, the current one included; all if not given. The state then holds no more than that and
      has no end; without it, the tokens of a document past the `max_len` of `init_state` have NaN.
    position: "none"; "rope"; "xpos", rotary with products that fade with distance; "alibi", scores that do.
    theta, layout, rotary, scaling: theta, layout, share and scaling of `layers.positions.rope`; a scaling's amplitude
      multiplies the entries that turn, of queries and of keys.
    softcap: scores s become softcap * tanh(s / softcap).
    out_features: rows of W_o, for a mixer around this one whose own width is another; the width if not given (Zamba's
      attention reads twice the width of its model).
    qk_norm: RMSNorm of queries and keys before they are turned: "none", "head" (of each head, one scale for all: Qwen3)
      or "all" (of all heads together: OLMo 2).
    norm_eps: the epsilon of that.
    scale: the factor of q . k in scores; 1/sqrt(k) if not given (Granite's attention multiplier; Zamba: sqrt(2/k)).
    gate: what of each head's output sigmoid(W_g x) multiplies: "none", every "entry" by its own (Qiu et al. 2025,
      arXiv:2505.06708: Qwen3-Next), or each whole "head" (LFM3).
    persistent: learned tokens that every token sees beside its window, in every document (Sukhbaatar et al. 2019,
      arXiv:1907.01470; Behrouz et al. 2025, arXiv:2501.00663, eq. (19)). Rotations place them in front of the document,
      the last one at -1.
    bias: which maps have one: "none", "qkv", "out", or "all" of these four.
    cache_dtype: of the keys and values in the state: "float32", "bfloat16", or "int8" with a float32 unit for each
      vector. Outputs of `prefill` and `step` then differ from those of `__call__` by rounding; "int8" is for inference,
      as hardly any gradient passes through it.
  """

  width: int
  heads: int | None = None
  kv_heads: int | None = None
  head_size: int | None = None
  mask: str = "causal"
  window: int | None = None
  position: str = "none"
  theta: float = 1e4
  layout: str = "half"
  rotary: float = 1.0
  scaling: Mapping[str, Any] | None = None
  softcap: float | None = None
  out_features: int | None = None
  qk_norm: str = "none"
  norm_eps: float = 1e-6
  scale: float | None = None
  gate: str = "none"
  persistent: int = 0
  bias: str = "none"
  cache_dtype: str = "float32"

  MOST_HEADS = 8

  @property
  def STATE(self) -> str:
    """'none' with mask="full", 'window' with a window, else 'grows'."""
    if self.mask == "full":
      return "none"
    return "grows" if self.window is None else "window"

  @property
  def out_width(self) -> int:
    """Returns the width of the outputs."""
    return self.out_features or self.width

  def __post_init__(self):
    self.scaling = fixed(self.scaling)
    super().__post_init__()

  def setup(self):
    heads, groups, size = self._sizes
    dense = lambda features, axes, where: Dense(features, use_bias=self.bias in (where, "all"), axes=axes)
    self.q_proj = dense(heads * size, ("embed", "heads"), "qkv")
    self.k_proj = dense(groups * size, ("embed", "kv"), "qkv")
    self.v_proj = dense(groups * size, ("embed", "kv"), "qkv")
    self.out_proj = dense(self.out_width, ("heads", "embed"), "out")
    if self.qk_norm != "none":
      norm = lambda axis: RMSNorm(eps=self.norm_eps, axis=axis if self.qk_norm == "all" else None)
      self.q_norm, self.k_norm = norm("heads"), norm("kv")
    if self.gate != "none":
      self.gate_proj = Dense(heads * size if self.gate == "entry" else heads, axes=("embed", "heads"))
    if self.persistent:
      self.P = param(self, "P", nn.initializers.normal(0.02), (self.persistent, self.width), (None, "embed"))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    """Empty slots for a document of `max_len` tokens, or for the window."""
    self._require_state()
    _, groups, size = self._sizes
    slots = max_len if self.window is None else self.window
    return cache.empty(batch, slots, dict.fromkeys(("k", "v"), (groups, size)), self.cache_dtype)

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t e"]:
    places = cache.locate(x, **where.masks)
    q, kv = self.project(x, places.offset)
    # the padding comes last, so that a causal token does not see it anyway
    apart = where.reset is not None or (where.lengths is not None and self.mask == "full") or self.persistent
    locations = dict(q_segment=places.segment, k_segment=places.segment) if apart else {}
    if self.persistent:
      locations |= dict(q_position=places.position, k_position=places.position)
    return self.attend(x, q, **kv, **locations)

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t e"], State]:
    places = cache.locate(x, state, **where.masks)
    q, kv = self.project(x, places.offset)
    ring = self.window is not None
    visible, state = cache.extend(state, kv, places, ring=ring, packed=where.reset is not None)
    y = self.attend(x, q, **visible.kept, **cache.locations(places, visible))
    return y if ring else cache.nan_where_full(y, places, state), state

  def mix_token(self, x, state: State, side):
    if self.persistent or self.position == "xpos":
      return super().mix_token(x, state, side)
    places, ring = cache.locate(x[:, None], state), self.window is not None
    q, kv = self.project(x[:, None], places.offset)
    state = cache.append(state, kv, places, ring=ring)
    y = attention_step(
      (q[:, 0],),
      (state.kept["k"],),
      state.kept["v"],
      **cache.locations_of_one(places, state),
      scale=self.scale or q.shape[-1] ** -0.5,
      window=self.window,
      softcap=self.softcap,
      slopes=self._slopes,
    )
    y = self._out(x, y)
    return y if ring else cache.nan_where_full(y[:, None], places, state)[:, 0], state

  def project(
    self, x: Float[Array, "b t d"], offset: Int[Array, "b t"]
  ) -> tuple[Float[Array, "b t h k"], dict[str, Float[Array, "b t g k"]]]:
    """Queries; keys and values as the cache holds them."""
    return self.arranged(self.q_proj(x), self.k_proj(x), self.v_proj(x), offset)

  def arranged(
    self, q: Float[Array, "b t e"], k: Float[Array, "b t f"], v: Float[Array, "b t f"], offset: Int[Array, "b t"]
  ) -> tuple[Float[Array, "b t h k"], dict[str, Float[Array, "b t g k"]]]:
    """Cuts W_q x, W_k x and W_v x into heads, and normalises and turns them."""
    heads, groups, size = self._sizes
    split = lambda z, h: z.reshape(*z.shape[:2], h, size)
    if self.qk_norm == "all":
      q, k = self.q_norm(q), self.k_norm(k)
    q, k, v = split(q, heads), split(k, groups), split(v, groups)
    if self.qk_norm == "head":
      q, k = self.q_norm(q), self.k_norm(k)
    if self.position in ("rope", "xpos"):
      turn: dict[str, Any] = dict(theta=self.theta, layout=self.layout, share=self.rotary, scaling=self.scaling)
      turn["amplitude"] = amplitude(self.scaling)
      q, k = rope(q, offset, **turn), rope(k, offset, **turn)
    return q, dict(k=k, v=v)

  def attend(self, x: Float[Array, "b t d"], q: Float[Array, "b t h k"], k, v, **where) -> Float[Array, "b t e"]:
    """W_o softmax(q k) v, perhaps gated; `where` are the places that `kernels.attention` wants.

    All four of these are needed with persistent tokens.
    """
    size = self._sizes[2]
    if self.persistent:
      k, v, where = self._with_persistent(k, v, where)
    fades = self.position == "xpos"
    y = attention(
      q,
      k,
      v,
      mask=self.mask,
      scale=self.scale,
      window=self.window,
      softcap=self.softcap,
      slopes=self._slopes,
      decays=xpos_decays(size, layout=self.layout, share=self.rotary) if fades else None,
      **where,
    )
    return self._out(x, y)

  def _out(self, x: Float[Array, "*b d"], y: Float[Array, "*b h k"]) -> Float[Array, "*b e"]:
    """W_o y, gated by x where there is a gate."""
    if self.gate != "none":
      y = y * jax.nn.sigmoid(self.gate_proj(x)).reshape(*y.shape[:-1], -1)
    return self.out_proj(y.reshape(*x.shape[:-1], -1))

  @property
  def _slopes(self) -> tuple[float, ...] | None:
    return alibi_slopes(self._sizes[0]) if self.position == "alibi" else None

  @property
  def _sizes(self) -> tuple[int, int, int]:
    """Heads, heads of keys and values, size of a head."""
    heads = self.heads or _derived_heads(self)
    return heads, self.kv_heads or heads, self.head_size or self.width // heads

  def _with_persistent(self, k: Float[Array, "b s g k"], v: Float[Array, "b s g k"], where: dict[str, Any]):
    """Keys, values and places with those of the persistent tokens in front."""
    _, kv = self.project(self.P[None], jnp.arange(-self.persistent, 0)[None])

    def before(rest: Array, z: Array) -> Array:
      return jnp.concatenate([jnp.broadcast_to(z, (len(rest), *z.shape[1:])).astype(rest.dtype), rest], axis=1)

    segment, position = jnp.full((1, self.persistent), EVERYONE), jnp.zeros((1, self.persistent))
    where |= dict(k_segment=before(where["k_segment"], segment), k_position=before(where["k_position"], position))
    return before(k, kv["k"]), before(v, kv["v"]), where

  @nn.nowrap
  def check(self) -> None:
    name = type(self).__name__
    one_of(self, **CHOICES)
    if self.position not in POSITIONS:
      others = "; 'learned' and 'sinusoidal' are for the model's own position"
      raise Mistake(f"{name}: position={self.position!r}; choose from {list(POSITIONS)}{others}")
    at_least_one(self, "width", "heads", "kv_heads", "head_size", "window", "out_features")
    above_zero(self, "theta", "softcap", "scale")
    if self.persistent < 0:
      raise Mistake(f"{name}: persistent={self.persistent}; it must be at least 0")
    if self.persistent and self.position in ("xpos", "alibi"):
      what = "tokens are seen from anywhere, so they need positions that do not fade"
      raise Mistake(f"{name}: persistent={self.persistent} with position={self.position!r}; these {what}")
    at_least_zero(self, "norm_eps")
    if not 0 < self.rotary <= 1:
      raise Mistake(f"{name}: rotary={self.rotary} is a share of a head's entries; it must be in (0, 1]")
    heads, groups, size = self._sizes
    if self.width % heads and self.head_size is None:
      raise Mistake(f"{name}: heads={heads} does not divide width={self.width}")
    if heads % groups:
      raise Mistake(f"{name}: kv_heads={groups} does not divide heads={heads}")
    if self.position in ("rope", "xpos"):
      pairs = turned(size, self.rotary)
      if pairs % 2 or not pairs:
        what = f"heads={heads} of width={self.width} have size {size}; position={self.position!r} turns pairs"
        raise Mistake(f"{name}: {what}, and rotary={self.rotary} of that is {pairs}")
      frequencies(pairs, self.theta, self.scaling)
    elif self.scaling is not None:
      raise Mistake(f"{name}: scaling={dict(self.scaling)} is of rotations; position={self.position!r} has none")
    if self.mask == "full" and (self.window is not None or self.position == "xpos"):
      field = "window" if self.window is not None else "position"
      raise Mistake(f"{name}: {field}={getattr(self, field)!r} looks back only, so it needs mask='causal', not 'full'")


def _derived_heads(module: Attention) -> int:
  width, multiple, most, name = module.width, module.kv_heads or 1, module.MOST_HEADS, type(module).__name__
  fits = [h for h in range(1, min(most, width) + 1) if width % h == 0 and h % multiple == 0]
  if not fits:
    raise Mistake(f"{name}: no number of heads up to {most} divides width={width} and is a multiple of {multiple}")
  entries = {h: turned(module.head_size or width // h, module.rotary) for h in fits}
  return max((h for h in fits if entries[h] > 0 and entries[h] % 2 == 0), default=max(fits))
