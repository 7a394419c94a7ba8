"""One label for a whole sequence, read in parallel or as it comes in."""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hybrids.model import Model
from layers import Dense, param
from layers.event_pool import time_weights
from layers.lengths import blank_past
from mistake import Mistake

POOLS = ("mean", "last", "cls", "time")


class ClassifierState(NamedTuple):
  """What a classifier must remember: the model's state, and what its label is made of so far."""

  position: Int[Array, "b"]  # of the next token, in its document
  layers: tuple
  pooled: Float[Array, "b d"]  # float32; the weighted sum of all outputs with "mean" and "time", else the last one
  weight: Float[Array, "b"]  # float32; of all tokens so far


class Classifier(Model, kw_only=True):
  """Logits of one label a row: a linear map of the pooled outputs of its tokens, whatever documents they are from.

  Attributes:
    vocab, features: one of them: number of tokens, or size of the input vectors.
    pool: "mean" of the outputs, the "last" one, or "cls": the output at a learned vector that follows the last token.
      It follows rather than precedes, so that causal mixers have read the sequence when they come to it; others do not
      mind. It has no position. Or "time", as in Event-SSM: the mean weighted by side["dt"], the gap before each token,
      1 if not given. A row without tokens has a pooled value of 0.
  Raises:
    ValueError: when made, if a field does not fit; when called, if there is a `side` that nobody knows, or "cls".
  """

  classes: int
  vocab: int | None = None
  features: int | None = None
  pool: str = "mean"

  def __post_init__(self):
    if self.pool not in POOLS:
      raise Mistake(f"no pool {self.pool!r}; choose from {list(POOLS)}")
    if self.classes < 1:
      raise Mistake(f"classes={self.classes}; it is at least 1")
    super().__post_init__()

  def setup(self):
    super().setup()
    if self.pool == "cls":
      self.cls = param(self, "cls", nn.initializers.normal(0.02), (self.width,), ("embed",))
    self.head = Dense(self.classes, use_bias=True, axes=("embed", None))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> ClassifierState:
    """Before any token, not learned; see `start`."""
    return self._first(self._stack(parent=None).init_state(batch, self._room(max_len)), batch)

  def start(self, batch: int, max_len: int) -> ClassifierState:
    """`init_state`, with what is learned in its place."""
    return self._first(self.stack.start(batch, self._room(max_len)), batch)

  def __call__(
    self,
    inputs: Int[Array, "b t"] | Float[Array, "b t f"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b c"]:
    """The logits of each row's label; `side` is for the mixers that know its names, and for the pool."""
    b, t = inputs.shape[:2]
    given, gaps = self._given(side)
    x, _ = self.embed(inputs, jnp.zeros((b,), jnp.int32), reset=reset, lengths=lengths)
    n = jnp.full((b,), t, jnp.int32) if lengths is None else lengths
    if self.pool != "cls":
      y = self._last_norm(self.stack(x, reset=reset, lengths=lengths, side=given))
      return self._label(*_pool(self.pool, y, n, gaps, jnp.zeros((b, self.width)), jnp.zeros(b)))
    x = jnp.concatenate([x, jnp.zeros_like(x[:, :1])], axis=1)
    here = jnp.arange(t + 1) == n[:, None]
    x = jnp.where(here[..., None], self.cls.astype(x.dtype), x)
    if reset is not None:
      reset = jnp.concatenate([reset, jnp.zeros_like(reset[:, :1])], axis=1) & ~here
    y = self._last_norm(self.stack(x, reset=reset, lengths=None if lengths is None else lengths + 1))
    return self._label(*_pool("last", y, n + 1, None, jnp.zeros((b, self.width)), jnp.zeros(b)))

  def prefill(
    self,
    inputs: Int[Array, "b t"] | Float[Array, "b t f"],
    state: ClassifierState,
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> tuple[Float[Array, "b c"], ClassifierState]:
    """The logits after all tokens so far, going on from `state`."""
    given, gaps = self._given(side)
    x, position = self.embed(inputs, state.position, reset=reset, lengths=lengths)
    y, layers = self.stack.prefill(x, state.layers, reset=reset, lengths=lengths, side=given)
    n = jnp.full(inputs.shape[:1], inputs.shape[1], jnp.int32) if lengths is None else lengths
    return self._after(self._last_norm(y), n, gaps, state._replace(position=position, layers=layers), x.dtype)

  def step(
    self,
    inputs: Int[Array, "b"] | Float[Array, "b f"],
    state: ClassifierState,
    *,
    side: Mapping[str, Array] | None = None,
  ) -> tuple[Float[Array, "b c"], ClassifierState]:
    """The logits after one more token."""
    given, gaps = self._given(side)
    x, position = self.embed.step(inputs, state.position)
    y, layers = self.stack.step(x, state.layers, side=given)
    gaps = None if gaps is None else gaps[:, None]
    state = state._replace(position=position, layers=layers)
    return self._after(self._last_norm(y)[:, None], jnp.ones_like(position), gaps, state, x.dtype)

  @nn.nowrap
  def _room(self, max_len: int) -> int:
    return max_len + 1 if self.pool == "cls" else max_len

  @nn.nowrap
  def _first(self, layers: tuple, batch: int) -> ClassifierState:
    none = jnp.zeros((batch,), jnp.int32)
    return ClassifierState(none, layers, jnp.zeros((batch, self.width)), jnp.zeros((batch,)))

  @nn.nowrap
  def _given(self, side: Mapping[str, Array] | None) -> tuple[dict[str, Array], Array | None]:
    """What of `side` is the mixers', which refuse what nobody knows, and the gaps for the pool."""
    given = dict(side or {})
    if self.pool == "cls" and given:
      raise Mistake(f"pool='cls' has a token of its own, of which side knows nothing; it has {sorted(given)}")
    gaps = given.get("dt") if self.pool == "time" else None
    if gaps is not None and "dt" not in self._stack(parent=None).SIDE:
      del given["dt"]
    return given, gaps

  def _after(
    self, y: Array, n: Array, gaps: Array | None, state: ClassifierState, dtype: jnp.dtype
  ) -> tuple[Float[Array, "b c"], ClassifierState]:
    """The logits after n more outputs, and the state with them; the learned vector is read and forgotten."""
    if self.pool == "cls":
      y, _ = self.stack.step(jnp.broadcast_to(self.cls.astype(dtype), state.pooled.shape), state.layers)
      pooled, weight = self._last_norm(y).astype(jnp.float32), state.weight
    else:
      pooled, weight = _pool(self.pool, y, n, gaps, state.pooled, state.weight)
    return self._label(pooled, weight), state._replace(pooled=pooled, weight=weight)

  def _label(self, pooled: Float[Array, "b d"], weight: Float[Array, "b"]) -> Float[Array, "b c"]:
    if self.pool in ("mean", "time"):
      pooled = pooled / jnp.where(weight > 0, weight, 1)[:, None]
    return self.head(pooled)


def _pool(
  how: str,
  y: Float[Array, "b t d"],
  n: Int[Array, "b"],
  gaps: Float[Array, "b t"] | None,
  before: Float[Array, "b d"],
  weight: Float[Array, "b"],
) -> tuple[Float[Array, "b d"], Float[Array, "b"]]:
  """The weighted sum of each row's first n outputs and of those before, and of the weights; or the last output."""
  y = blank_past(y.astype(jnp.float32), n)
  if how in ("mean", "time"):
    weights = jnp.ones(y.shape[:2]) if gaps is None else time_weights(gaps).astype(jnp.float32)
    weights = blank_past(weights, n)
    return before + jnp.sum(weights[..., None] * y, axis=1), weight + jnp.sum(weights, axis=1)
  last = jnp.take_along_axis(y, jnp.maximum(n - 1, 0)[:, None, None], axis=1)[:, 0]
  return jnp.where((n > 0)[:, None], last, before), weight
