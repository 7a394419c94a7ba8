"""One label for a whole sequence, read in parallel or as it comes in."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hybrids.model import Model
from layers import Dense, param
from layers.lengths import blank_past

POOLS = ("mean", "last", "cls")


class ClassifierState(NamedTuple):
  """What a classifier must remember: the model's state, and what its label is made of so far."""

  position: Int[Array, "b"]  # of the next token, in its document
  layers: tuple
  pooled: Float[Array, "b d"]  # float32; the sum of all outputs with "mean", otherwise the one that counts
  tokens: Int[Array, "b"]  # so far


class Classifier(Model, kw_only=True):
  """Logits of one label a row: a linear map of the pooled outputs of its tokens, whatever documents they are from.

  Attributes:
    vocab, features: one of them: number of tokens, or size of the input vectors.
    pool: "mean" of the outputs, the "last" one, or "cls": the output at a learned vector that follows the last token.
      It follows rather than precedes, so that causal mixers have read the sequence when they come to it; others do not
      mind. It has no position. A row without tokens has a pooled value of 0 ("mean", "last").
  Raises:
    ValueError: when made, if a field does not fit.
  """

  classes: int
  vocab: int | None = None
  features: int | None = None
  pool: str = "mean"

  def __post_init__(self):
    if self.pool not in POOLS:
      raise ValueError(f"no pool {self.pool!r}; choose from {list(POOLS)}")
    if self.classes < 1:
      raise ValueError(f"classes={self.classes}; it is at least 1")
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
  ) -> Float[Array, "b c"]:
    """The logits of each row's label."""
    b, t = inputs.shape[:2]
    x, _ = self.embed(inputs, jnp.zeros((b,), jnp.int32), reset=reset, lengths=lengths)
    n = jnp.full((b,), t, jnp.int32) if lengths is None else lengths
    if self.pool != "cls":
      y = self._last_norm(self.stack(x, reset=reset, lengths=lengths))
      return self._label(_pool(self.pool, y, n, jnp.zeros((b, self.width))), n)
    x = jnp.concatenate([x, jnp.zeros_like(x[:, :1])], axis=1)
    here = jnp.arange(t + 1) == n[:, None]
    x = jnp.where(here[..., None], self.cls.astype(x.dtype), x)
    if reset is not None:
      reset = jnp.concatenate([reset, jnp.zeros_like(reset[:, :1])], axis=1) & ~here
    y = self._last_norm(self.stack(x, reset=reset, lengths=None if lengths is None else lengths + 1))
    return self._label(_pool("last", y, n + 1, jnp.zeros((b, self.width))), n)

  def prefill(
    self,
    inputs: Int[Array, "b t"] | Float[Array, "b t f"],
    state: ClassifierState,
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
  ) -> tuple[Float[Array, "b c"], ClassifierState]:
    """The logits after all tokens so far, going on from `state`."""
    x, position = self.embed(inputs, state.position, reset=reset, lengths=lengths)
    y, layers = self.stack.prefill(x, state.layers, reset=reset, lengths=lengths)
    n = jnp.full(inputs.shape[:1], inputs.shape[1], jnp.int32) if lengths is None else lengths
    pooled = self._pooled(self._last_norm(y), n, layers, state.pooled, x.dtype)
    state = ClassifierState(position, layers, pooled, state.tokens + n)
    return self._label(pooled, state.tokens), state

  def step(
    self, inputs: Int[Array, "b"] | Float[Array, "b f"], state: ClassifierState
  ) -> tuple[Float[Array, "b c"], ClassifierState]:
    """The logits after one more token."""
    x, position = self.embed.step(inputs, state.position)
    y, layers = self.stack.step(x, state.layers)
    one = jnp.ones_like(state.tokens)
    pooled = self._pooled(self._last_norm(y)[:, None], one, layers, state.pooled, x.dtype)
    state = ClassifierState(position, layers, pooled, state.tokens + one)
    return self._label(pooled, state.tokens), state

  @nn.nowrap
  def _room(self, max_len: int) -> int:
    return max_len + 1 if self.pool == "cls" else max_len

  @nn.nowrap
  def _first(self, layers: tuple, batch: int) -> ClassifierState:
    none = jnp.zeros((batch,), jnp.int32)
    return ClassifierState(none, layers, jnp.zeros((batch, self.width)), none)

  def _pooled(self, y: Array, n: Array, layers: tuple, before: Array, dtype: jnp.dtype) -> Float[Array, "b d"]:
    """What the label is made of, after n more outputs; the learned vector is read and forgotten."""
    if self.pool != "cls":
      return _pool(self.pool, y, n, before)
    cls = jnp.broadcast_to(self.cls.astype(dtype), before.shape)
    y, _ = self.stack.step(cls, layers)
    return self._last_norm(y).astype(jnp.float32)

  def _label(self, pooled: Float[Array, "b d"], count: Int[Array, "b"]) -> Float[Array, "b c"]:
    if self.pool == "mean":
      pooled = pooled / jnp.maximum(count, 1)[:, None]
    return self.head(pooled)


def _pool(how: str, y: Float[Array, "b t d"], n: Int[Array, "b"], before: Float[Array, "b d"]) -> Float[Array, "b d"]:
  """The sum of each row's first n outputs and what was summed before, or the last of them."""
  y = blank_past(y.astype(jnp.float32), n)
  if how == "mean":
    return before + jnp.sum(y, axis=1)
  last = jnp.take_along_axis(y, jnp.maximum(n - 1, 0)[:, None, None], axis=1)[:, 0]
  return jnp.where((n > 0)[:, None], last, before)
