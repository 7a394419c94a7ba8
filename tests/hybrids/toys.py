"""Mixers small enough to see through, each with one thing that a stack must handle."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from layers.lengths import blank_past


class State(NamedTuple):
  h: jax.Array  # "b d"


class Decay(nn.Module):
  """h_t = a h_{t-1} + x_t, y = scale h; `scale` starts as layer + 1, which shows that initialisers know their place."""

  width: int
  layer: int = 0
  depth: int = 1
  STATE = "fixed"
  SIDE = ()

  def setup(self):
    self.a = self.param("a", nn.initializers.uniform(0.9), (self.width,))
    init = nn.with_logical_partitioning(nn.initializers.constant(self.layer + 1), ("embed",))
    self.scale = self.param("scale", init, (self.width,))

  @nn.nowrap
  def init_state(self, batch, max_len):
    return State(jnp.zeros((batch, self.width)))

  def __call__(self, x, *, reset=None, lengths=None, side=None):
    return self.prefill(x, self.init_state(*x.shape[:2]), reset=reset, lengths=lengths)[0]

  def prefill(self, x, state, *, reset=None, lengths=None, side=None):
    b, t, _ = x.shape
    reset = jnp.zeros((b, t), bool) if reset is None else reset
    here = jnp.ones((b, t), bool) if lengths is None else jnp.arange(t) < lengths[:, None]

    def token(h, inputs):
      x, reset, here = inputs
      new = self.a * jnp.where(reset[:, None], 0, h) + x
      h = jnp.where(here[:, None], new, h)
      return h, h

    time_first = lambda leaf: jnp.swapaxes(leaf, 0, 1)
    inputs = jax.tree.map(time_first, (blank_past(x, lengths).astype(jnp.float32), reset, here))
    h, hs = jax.lax.scan(token, state.h, inputs)
    return blank_past((self.scale * time_first(hs)).astype(x.dtype), lengths), State(h)

  def step(self, x, state, *, side=None):
    h = self.a * state.h + x.astype(jnp.float32)
    return (self.scale * h).astype(x.dtype), State(h)


class Pointwise(nn.Module):
  """What the toys below share: no state, and one function of each token."""

  width: int
  STATE = "fixed"
  SIDE = ()

  @nn.nowrap
  def init_state(self, batch, max_len):
    return State(jnp.zeros((batch, 0)))

  def __call__(self, x, *, reset=None, lengths=None, side=None):
    return blank_past(self.one(blank_past(x, lengths), side), lengths)

  def prefill(self, x, state, *, reset=None, lengths=None, side=None):
    return self(x, lengths=lengths, side=side), state

  def step(self, x, state, *, side=None):
    return self.one(x, side), state


class Ones(Pointwise):
  """Returns ones, so that dropout is seen by itself."""

  def one(self, x, side):
    return jnp.ones_like(x)


class Centre(Pointwise):
  """Subtracts the mean over batch and time, keeps a running one for evaluation, and sows a number."""

  def setup(self):
    self.mean = self.variable("batch_stats", "mean", jnp.zeros, (self.width,))

  def one(self, x, side):
    mean = self.mean.value
    if self.is_mutable_collection("batch_stats") and not self.is_initializing():
      mean = jnp.mean(x, axis=tuple(range(x.ndim - 1)))
      self.mean.value = 0.5 * self.mean.value + 0.5 * mean
    self.sow("losses", "size", jnp.sum(jnp.square(x)))
    return jnp.tanh(x - mean)


class Offers(Pointwise):
  """Offers `first`, and adds what the first layer offered; its map of that exists only where there is something."""

  SIDE = ("first", "given")  # type: ignore[assignment]

  def setup(self):
    self.key = self.param("key", nn.initializers.normal(1.0), (self.width,))
    self.mix = nn.Dense(self.width, use_bias=False)

  def offer(self, x, state, *, reset=None, lengths=None):
    assert x.ndim == 3, "one token is offered as a sequence of one"
    return {"first": self.key * x}

  def one(self, x, side):
    side = dict(side or {})
    return jnp.sin(x) + (self.mix(side["first"]) if "first" in side else 0) + side.get("given", 0)


class Whole(nn.Module):
  """Reads everything at once: y_t = x_t - mean(x)."""

  width: int
  STATE = "none"
  SIDE = ()

  @nn.compact
  def __call__(self, x, *, reset=None, lengths=None, side=None):
    x = blank_past(x, lengths)
    n = x.shape[1] if lengths is None else lengths[:, None, None]
    return blank_past(x - jnp.sum(x, axis=1, keepdims=True) / n, lengths)


class Grows(Pointwise):
  """Has other parameters in every layer, which a loop cannot have."""

  layer: int = 0

  @nn.compact
  def one(self, x, side):
    return x * self.param("grown", nn.initializers.ones, (self.layer + 1,))[0]


class Turn(Decay):
  """Has a complex state."""

  @nn.nowrap
  def init_state(self, batch, max_len):
    return State(jnp.zeros((batch, self.width), jnp.complex64))

  def prefill(self, x, state, *, reset=None, lengths=None, side=None):
    return x + state.h.real[:, None], State(1j * state.h)
