"""Multi-head latent attention: keys and values of all heads are made of one short vector a token. State: grows.

DeepSeek-AI 2024, arXiv:2405.04434, sec. 2.1 (V2); 2412.19437 (V3). Theirs: d -> d, n_h -> heads, d_h -> head_size,
d_h^R -> rope_size, d_c -> rank, d_c' -> q_rank, h -> x, u -> y.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from attention import cache
from kernels.attention import attention
from kernels.attention.step import attention_step
from kernels.inputs import product
from layers import Dense, RMSNorm, param, project
from layers.choices import one_of
from layers.mixer import Mixer, Where
from layers.positions import LAYOUTS, rope
from layers.rope_scaling import amplitude, fixed, frequencies
from layers.sizes import above_zero, at_least_one, at_least_zero
from mistake import Mistake

POSITIONS = ("none", "rope")
GATES = ("none", "entry", "head")
CHOICES = {"gate": GATES, "position": POSITIONS, "layout": LAYOUTS, "cache_dtype": cache.DTYPES}

State = cache.Cache  # kept: the latent "c" after its norm, and the shared key "k", turned; one group of each


class MLA(Mixer):
  """c_t = norm(W_DKV x_t),  k_t = R_t W_KR x_t,  [q_ti; r_ti] = W_Q x_t or W_UQ norm(W_DQ x_t)     eqs. (9) to (19)

  y_t = W_O concat_i(sum_s softmax_s((q_ti . W_UK_i c_s + R_t r_ti . k_s) / sqrt(head_size + rope_size)) W_UV_i c_s).

  Only c and k are remembered: rank + max(1, rope_size) numbers a token. `__call__` makes keys and values of c;
  `prefill` and `step` attend to c itself, with queries W_UK_i^T q_ti, and apply W_UV_i to what comes out, the same.
  Positions count from the start of the document. Departs: the compressed vectors are normalised, as in the authors'
  code and sec. 3.1.2.

  Attributes:
    heads: the width over 128, and at least 1, if not given (V2-Lite).
    rank: size of c.
    q_rank: size of the compressed queries, which are not compressed if not given (V2-Lite; 1536 in V2 and V3).
    head_size, rope_size: entries of a query and key without and with rotations; where nothing turns, 0 of the latter
      will do.
    value_size: entries of a value of each head.
    position: "rope", or "none": nothing turns (Kimi Linear).
    theta, layout, scaling: as in `layers.positions.rope`; a scaling's amplitude multiplies all of a score, twice, as in
      V3's checkpoints.
    norm_eps: the epsilon of the norms.
    gate: what of each head's output sigmoid(W_g x) multiplies: "none", every "entry" by its own, or each whole "head"
      (Ling 3).
    cache_dtype: of c and k in the state, as in `Attention`.
  """

  width: int
  heads: int | None = None
  rank: int = 512
  q_rank: int | None = None
  head_size: int = 128
  rope_size: int = 64
  value_size: int = 128
  position: str = "rope"
  theta: float = 1e4
  layout: str = "interleaved"
  scaling: Mapping[str, Any] | None = None
  norm_eps: float = 1e-6
  gate: str = "none"
  cache_dtype: str = "float32"

  STATE = "grows"

  def __post_init__(self):
    self.scaling = fixed(self.scaling)
    super().__post_init__()

  def setup(self):
    heads, init = self._heads, nn.initializers.lecun_normal()
    queries = heads * (self.head_size + self.rope_size)
    if self.q_rank is None:
      self.q_proj = Dense(queries, axes=("embed", "heads"))
    else:
      self.q_down = Dense(self.q_rank, axes=("embed", None))
      self.q_norm = RMSNorm(eps=self.norm_eps, axis=None)
      self.q_up = Dense(queries, axes=(None, "heads"))
    self.c_proj = Dense(self.rank, axes=("embed", None))
    self.c_norm = RMSNorm(eps=self.norm_eps, axis=None)
    if self.rope_size:
      self.r_proj = Dense(self.rope_size, axes=("embed", None))
    self.k_up = param(self, "k_up", init, (self.rank, heads * self.head_size), (None, "heads"))
    self.v_up = param(self, "v_up", init, (self.rank, heads * self.value_size), (None, "heads"))
    if self.gate != "none":
      self.gate_proj = Dense(heads * (self.value_size if self.gate == "entry" else 1), axes=("embed", "heads"))
    self.out_proj = Dense(self.width, axes=("heads", "embed"))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    """Empty slots for a document of `max_len` tokens; those past that have NaN."""
    return cache.empty(batch, max_len, self._kept, self.cache_dtype)

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    """With the keys and values of each head, which are fewer products than attention to the latents."""
    places = cache.locate(x, **where.masks)
    q, r, new = self._project(x, places.offset)
    latent = self._latent(new["c"])[:, :, 0]
    by_head = lambda W, size: project(latent, W, x.dtype).reshape(*x.shape[:2], self._heads, size)
    k, v = by_head(self.k_up, self.head_size), by_head(self.v_up, self.value_size)
    shared = jnp.broadcast_to(new["k"], (*k.shape[:3], new["k"].shape[3]))
    tokens, packed = cache.Tokens(new, places.segment, places.position), where.reset is not None
    return self._out(x, self._attend(x, _join(q, r), _join(k, shared), v, places, tokens, packed=packed, apart=packed))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    """With attention to the latents themselves, which are shared by all heads."""
    places = cache.locate(x, state, **where.masks)
    q, r, new = self._project(x, places.offset)
    packed = where.reset is not None
    visible, state = cache.extend(state, new, places, ring=False, packed=packed)
    c, k = self._latent(visible.kept["c"]), visible.kept["k"]
    q = product("bthk,chk->bthc", q, self._by_head(self.k_up, x), x.dtype)
    y = self._attend(x, _join(q, r), _join(c, k), c, places, visible, packed=packed, apart=True)
    y = product("bthc,chp->bthp", y, self._by_head(self.v_up, x), x.dtype)
    return cache.nan_where_full(self._out(x, y), places, state), state

  def mix_token(self, x, state: State, side):
    places = cache.locate(x[:, None], state)
    q, r, new = self._project(x[:, None], places.offset)
    state = cache.append(state, new, places, ring=False)
    q = product("bthk,chk->bthc", q, self._by_head(self.k_up, x), x.dtype)
    y = attention_step(
      (q[:, 0], r[:, 0]),
      (state.kept["c"], state.kept["k"]),
      state.kept["c"],
      **cache.locations_of_one(places, state),
      scale=self._scale,
    )
    y = product("bhc,chp->bhp", y, self._by_head(self.v_up, x), x.dtype)
    return cache.nan_where_full(self._out(x, y)[:, None], places, state)[:, 0], state

  def _attend(
    self, x, q, k, v, places: cache.Places, slots: cache.Tokens, *, packed: bool, apart: bool
  ) -> Float[Array, "b t h p"]:
    """Lets new tokens attend to those in slots; without `apart` both are the same tokens of one document a row."""
    del x, packed
    return attention(q, k, v, scale=self._scale, **(cache.locations(places, slots) if apart else {}))

  @nn.nowrap
  def _latent(self, c: Float[Array, "b s 1 _"]) -> Float[Array, "b s 1 c"]:
    return c[..., : self.rank]

  def _out(self, x: Float[Array, "*b d"], y: Float[Array, "*b h p"]) -> Float[Array, "*b d"]:
    """W_O y, gated by x where there is a gate."""
    if self.gate != "none":
      y = y * jax.nn.sigmoid(self.gate_proj(x)).reshape(*y.shape[:-1], -1)
    return self.out_proj(y.reshape(*x.shape[:-1], -1))

  def _by_head(self, W: Float[Array, "c e"], x: Float[Array, "..."]) -> Float[Array, "c h k"]:
    return W.reshape(self.rank, self._heads, -1).astype(x.dtype)

  @property
  def _heads(self) -> int:
    return self.heads or max(1, self.width // 128)

  @property
  def _kept(self) -> dict[str, tuple[int, int]]:
    """Returns groups and sizes of what is remembered of a token. A key without entries is a zero, or NaN as others."""
    return dict(c=(1, self.rank), k=(1, max(1, self.rope_size)))

  @property
  def _scale(self) -> float:
    return (self.head_size + self.rope_size) ** -0.5 * amplitude(self.scaling) ** 2

  def _project(
    self, x: Float[Array, "b t d"], offset: Int[Array, "b t"]
  ) -> tuple[Float[Array, "b t h k"], Float[Array, "b t h r"], dict[str, Float[Array, "b t 1 _"]]]:
    """Queries without and with rotations, and the vectors of each token for the cache."""
    q = self.q_proj(x) if self.q_rank is None else self.q_up(self.q_norm(self.q_down(x)))
    q, r = jnp.split(q.reshape(*x.shape[:2], self._heads, -1), [self.head_size], axis=-1)
    r = r if self.rope_size else jnp.zeros((*q.shape[:3], 1), x.dtype)
    k = self.r_proj(x)[:, :, None] if self.rope_size else jnp.zeros((*x.shape[:2], 1, 1), x.dtype)
    if self.position == "rope":
      turn: dict[str, Any] = dict(theta=self.theta, layout=self.layout, scaling=self.scaling)
      r, k = rope(r, offset, **turn), rope(k, offset, **turn)
    return q, r, dict(c=self.c_norm(self.c_proj(x))[:, :, None], k=k)

  @nn.nowrap
  def check(self) -> None:
    one_of(self, **CHOICES)
    at_least_one(self, "width", "heads", "rank", "q_rank", "head_size", "value_size")
    if self.rope_size < (self.position == "rope"):
      raise Mistake(f"MLA: rope_size={self.rope_size}; it must be at least 1, or 0 with position='none'")
    above_zero(self, "theta")
    at_least_zero(self, "norm_eps")
    if self.position == "rope":
      if self.rope_size % 2:
        raise Mistake(f"MLA: rope_size={self.rope_size} is odd; position='rope' turns pairs")
      frequencies(self.rope_size, self.theta, self.scaling)
    elif self.scaling is not None:
      raise Mistake(f"MLA: scaling={dict(self.scaling)} is of rotations; position='none' has none")


def _join(x: Array, y: Array) -> Array:
  return jnp.concatenate([x, y], axis=-1)
