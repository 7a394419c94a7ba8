"""Forgetting attention (FoX): what stands between two tokens says how much is forgotten. State: grows (or a window's).

Lin et al. 2025, arXiv:2503.02130. Theirs: c_t is the sum of log f up to t; use_k_shift, use_v_shift -> shift.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from attention import cache
from attention.softmax import Attention
from kernels.attention import attention
from kernels.attention.forgetting import Sums, own_sum, with_sums
from kernels.attention.step import attention_step
from kernels.decays import add_sums, running_sums
from kernels.inputs import valid
from layers import Dense, RMSNorm
from layers.choices import one_of
from layers.mixer import Where
from layers.norms import at_least_float32
from layers.token_shift import token_shift
from mistake import Mistake

SHIFTS = ("none", "k", "v", "kv")
NORMS = ("none", "head")
# fields of `Attention` with the values that forgetting leaves them
FIXED: dict[str, Any] = dict(mask="causal", softcap=None, persistent=0)


class State(NamedTuple):
  cache: cache.Cache  # kept: "k", turned already if positions turn, "v", and "sums" of log f up to the token, float32
  sums: Float[Array, "b g s"]  # of log f of all tokens: of each head the sum, then what rounding took away from it
  last: dict[str, Float[Array, "b e"]]  # W_k x and W_v x of the last token, of those that are shifted


class FoX(Attention):
  """y_t = W_o concat_i(sum_s softmax_s(q_ti . k_si / sqrt(k) + log f_{s+1} + ... + log f_t) v_s)     sec. 3

  with f_t = sigmoid(W_f x_t + b_f), one number a head: with all f = 1 it is `softmax`. Needs no positions. The paper's
  Pro block is gate="entry", out_norm="head", qk_norm="head" and shift="kv".
  Departs: nothing. Heads may share keys and values, but each head of queries has a gate of its own.

  Attributes: those of `Attention`, without soft cap, persistent tokens and later ones; `position` is "none" or "rope".
    out_norm: RMSNorm of each "head" of the output before the gate, with a scale for each entry; or "none".
    shift: which of keys and values are mixed with those of the token before, a z_{t-1} + (1 - a) z_t with
      a = sigmoid(w x_t) for each of their heads: "none", "k", "v" or "kv". Before a document stand zeros.
  """

  out_norm: str = "none"
  shift: str = "none"

  def setup(self):
    super().setup()
    heads, groups, _ = self._sizes
    self.f_proj = Dense(heads, use_bias=True, axes=("embed", "heads"))
    if self.out_norm != "none":
      self.y_norm = RMSNorm(eps=self.norm_eps, groups=heads, axis="heads")
    for name in self._shifted:
      setattr(self, f"{name}_shift", Dense(groups, axes=("embed", "kv")))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    """Empty slots for a document of `max_len` tokens, or for the window; no tokens before them."""
    heads, groups, size = self._sizes
    tokens = super().init_state(batch, max_len)
    sums = cache.empty(batch, tokens.segment.shape[1], dict(sums=(groups, 2 * heads // groups)), "float32")
    last = {name: jnp.zeros((batch, groups * size)) for name in self._shifted}
    return State(tokens._replace(kept=tokens.kept | sums.kept), sums.kept["sums"][:, :, 0], last)

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t e"]:
    places = cache.locate(x, **where.masks)
    q, kv, log_f, _ = self._read(x, places, self.init_state(len(x), 1).last, where)
    sums = running_sums(log_f, axis=1)
    # the padding comes last, so that a causal token does not see it anyway
    segments = {} if where.reset is None else dict(q_segment=places.segment, k_segment=places.segment)
    return self._forgetting(x, q, kv, sums, sums, **segments)

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t e"], State]:
    places, ring = cache.locate(x, state.cache, **where.masks), self.window is not None
    q, kv, log_f, last = self._read(x, places, state.last, where)
    # counted from the first token of x, sums stay small however many tokens came before
    sums, before = running_sums(log_f, axis=1), _apart(state.sums[:, None])
    kv["sums"] = _together(add_sums(before, sums))
    visible, tokens = cache.extend(state.cache, kv, places, ring=ring, packed=where.reset is not None)
    of_keys = add_sums(_apart(visible.kept.pop("sums")), jax.tree.map(jnp.negative, before))
    y = self._forgetting(x, q, visible.kept, sums, of_keys, **cache.locations(places, visible))
    y = y if ring else cache.nan_where_full(y, places, tokens)
    return y, State(tokens, kv["sums"][:, -1], last)

  def mix_token(self, x, state: State, side):
    places, ring = cache.locate(x[:, None], state.cache), self.window is not None
    q, kv, log_f, last = self._read(x[:, None], places, state.last, Where())
    now = add_sums(_apart(state.sums[:, None]), (log_f, jnp.zeros_like(log_f)))
    kv["sums"] = _together(now)
    tokens = cache.append(state.cache, kv, places, ring=ring)
    high, low = (new.swapaxes(1, 2) - old for new, old in zip(now, _apart(tokens.kept["sums"])))
    _, groups, size = self._sizes
    y = attention_step(
      (q[:, 0] * (self.scale or size**-0.5), own_sum(q[:, 0], groups)),
      (tokens.kept["k"], high + low),
      tokens.kept["v"],
      **cache.locations_of_one(places, tokens),
      scale=1.0,
      window=self.window,
    )
    y = self._out(x, y)
    y = y if ring else cache.nan_where_full(y[:, None], places, tokens)[:, 0]
    return y, State(tokens, kv["sums"][:, 0], last)

  def _read(
    self, x: Float[Array, "b t d"], places: cache.Places, last: dict[str, Float[Array, "b e"]], where: Where
  ) -> tuple[Float[Array, "b t h k"], cache.Kept, Float[Array, "b t g r"], dict[str, Float[Array, "b e"]]]:
    """Queries; keys and values; log f, 0 in the padding; and what the next token mixes in."""
    flat, after = dict(k=self.k_proj(x), v=self.v_proj(x)), {}
    for name in self._shifted:
      before, after[name] = token_shift(flat[name], last[name], **where.masks)
      share = jnp.repeat(jax.nn.sigmoid(at_least_float32(getattr(self, f"{name}_shift")(x))), self._sizes[2], axis=-1)
      flat[name] = (flat[name] + share * (before - flat[name])).astype(x.dtype)
    # in float32, as the gradient of log f is a difference of sums over all later tokens, which bfloat16 loses
    q, kv = jax.tree.map(at_least_float32, self.arranged(self.q_proj(x), flat["k"], flat["v"], places.offset))
    log_f = jax.nn.log_sigmoid(at_least_float32(self.f_proj(x))).reshape(*x.shape[:2], self._sizes[1], -1)
    # in a sum it would reach all later tokens; as a key it reaches those that see the token
    finite = jnp.isfinite(log_f)
    kv["k"] = jnp.where(finite.all(axis=-1, keepdims=True), kv["k"], jnp.nan)
    counts = finite if where.lengths is None else finite & valid(where.lengths, x.shape[1])[..., None, None]
    return q, kv, jnp.where(counts, log_f, 0), after

  def _forgetting(
    self, x: Float[Array, "b t d"], q: Float[Array, "b t h k"], kv: cache.Kept, q_sums: Sums, k_sums: Sums, **where
  ) -> Float[Array, "b t e"]:
    """W_o of what queries see through the gates between them and keys."""
    q, k = with_sums(q, kv["k"], q_sums, k_sums, scale=self.scale or self._sizes[2] ** -0.5)
    return self._out(x, attention(q, k, kv["v"], scale=1.0, window=self.window, **where))

  def _out(self, x: Float[Array, "*b d"], y: Float[Array, "*b h k"]) -> Float[Array, "*b e"]:
    """W_o y, normalised and gated by x where it is."""
    y = y.astype(x.dtype)
    if self.out_norm != "none":
      y = self.y_norm(y.reshape(*y.shape[:-2], -1)).reshape(y.shape)
    return super()._out(x, y)

  @property
  def _shifted(self) -> str:
    return "" if self.shift == "none" else self.shift

  @nn.nowrap
  def check(self) -> None:
    super().check()
    one_of(self, out_norm=NORMS, shift=SHIFTS)
    for name, value in FIXED.items():
      if getattr(self, name) != value:
        raise Mistake(f"FoX: {name}={getattr(self, name)!r}; with forget gates it is {value!r}")
    if self.position not in ("none", "rope"):
      raise Mistake(f"FoX: position={self.position!r}; forget gates fade scores already: choose 'none' or 'rope'")


def _apart(sums: Float[Array, "*b e"]) -> Sums:
  """Returns the sums, and what rounding took away."""
  high, low = jnp.split(sums, 2, axis=-1)
  return high, low


def _together(sums: Sums) -> Float[Array, "*b e"]:
  return jnp.concatenate(sums, axis=-1)
