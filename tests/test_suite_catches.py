"""The contract suite fails where it should: a small honest mixer passes, and each way of breaking it is caught."""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from tests.contract.case import Case, D
from tests.contract.checks import CHECKS


class State(NamedTuple):
  h: jax.Array  # "b e"
  last: jax.Array  # "b e", the input before this one


class Toy(nn.Module):
  """h_t = a h_{t-1} + u_t + c u_{t-1} with u = W x, y = V h, token by token; `bug` names what is wrong with it."""

  width: int = D
  inner: int = 6
  bug: str = ""
  STATE = "fixed"
  SIDE = ()

  def setup(self):
    init = nn.initializers.normal(0.5)
    self.W = self.param("W", init, (self.width, self.inner))
    self.V = self.param("V", init, (self.inner, self.width))
    self.c = self.param("c", init, (self.inner,))

  @nn.nowrap
  def init_state(self, batch, max_len):
    if self.bug == "state grows":
      return State(jnp.zeros((batch, self.inner)), jnp.zeros((batch, self.inner, max_len)))
    state = State(jnp.zeros((batch, self.inner)), jnp.zeros((batch, self.inner)))
    if self.bug == "state in bfloat16":
      return State(*(leaf.astype(jnp.bfloat16) for leaf in state))
    return state

  def __call__(self, x, *, reset=None, lengths=None, side=None):
    if self.bug == "call ignores resets":
      reset = None
    y, _ = self.prefill(x, self.init_state(*x.shape[:2]), reset=reset, lengths=lengths, side=side)
    if self.bug == "call ignores lengths":
      y, _ = self.prefill(x, self.init_state(*x.shape[:2]), reset=reset, side=side)
    return 1.01 * y if self.bug == "call scales" else y

  def prefill(self, x, state, *, reset=None, lengths=None, side=None):
    b, t, _ = x.shape
    bug = self.bug
    if bug == "prefill forgets the state":
      state = self.init_state(b, 0)
    if bug == "stops the gradient into the state":
      state = jax.tree.map(jax.lax.stop_gradient, state)
    reset = jnp.zeros((b, t), bool) if reset is None else reset
    live = jnp.ones((b, t), bool) if lengths is None else jnp.arange(t) < lengths[:, None]
    frozen = jnp.zeros((b, t), bool) if bug == "lengths freeze nothing" else ~live
    if bug not in ("masks by multiplication", "masks the outputs only"):
      x = jnp.where(live[..., None], x, 0)
    u = x @ self.W.astype(x.dtype)
    if bug == "looks ahead":
      u = u + 0.1 * jnp.roll(u, -1, axis=1).at[:, -1].set(0)
    if bug == "mixes rows":
      u = u + 0.1 * jnp.mean(u, axis=0, keepdims=True)
    if bug == "reads side" and side is not None:
      u = u + sum(jnp.mean(value) for value in side.values())
    scan = functools.partial(self.cell, past_lengths=bug == "resets past lengths")
    over_time = lambda value: jnp.swapaxes(value, 0, 1)
    state, h = jax.lax.scan(scan, state, jax.tree.map(over_time, (u.astype(jnp.float32), reset, frozen)))
    y = over_time(h) @ self.V
    if bug == "remembers nothing":
      y = u.astype(jnp.float32) @ self.V
    if bug == "overflows":
      decay = 0.5 ** jnp.arange(t, dtype=jnp.float32)[:, None]
      y = y + 0 * (jnp.cumsum(u / decay, axis=1) * decay) @ self.V
    y = (y + 0 * x) * live[..., None] if bug == "masks by multiplication" else jnp.where(live[..., None], y, 0)
    return y if bug == "returns float32" else y.astype(x.dtype), state

  def cell(self, state, inputs, *, past_lengths):
    u, reset, frozen = inputs
    clear = (reset if past_lengths else reset & ~frozen)[:, None]
    before = State(*(jnp.where(clear, 0, leaf) for leaf in state))
    last = state.last if self.bug == "convolves across resets" else before.last
    h = 0.8 * before.h + u + self.c * last
    new = jax.tree.map(lambda old, after: jnp.where(frozen[:, None], old, after), before, State(h, u))
    new = jax.tree.map(lambda old, after: after.astype(old.dtype), state, new)
    return new, new.h.astype(jnp.float32)

  def step(self, x, state, *, side=None):
    if self.bug == "step forgets the last input":
      state = state._replace(last=jnp.zeros_like(state.last))
    y, after = self.prefill(x[:, None], state, side=None if side is None else {k: v[:, None] for k, v in side.items()})
    if self.bug == "step returns the state in bfloat16":
      after = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), after)
    return y[:, 0], after


COUNT = 2 * D * 6 + 6
BUGS = {
  "call scales": "prefill_composes",
  "call ignores resets": "call_separates_documents",
  "call ignores lengths": "call_ignores_what_lies_past_lengths",
  "prefill forgets the state": "prefill_composes",
  "stops the gradient into the state": "prefill_gradients_ignore_what_lies_past_lengths",
  "lengths freeze nothing": "parallel_is_prefill_then_steps",
  "masks by multiplication": "call_ignores_what_lies_past_lengths",
  "masks the outputs only": "call_gradients_ignore_what_lies_past_lengths",
  "looks ahead": "causal",
  "mixes rows": "causal",
  "remembers nothing": "causal",
  "reads side": "ignores_side_inputs_it_does_not_declare",
  "resets past lengths": "resets_past_lengths_do_nothing",
  "convolves across resets": "prefill_separates_documents",
  "overflows": "finite_over_a_long_sequence",
  "state grows": "state_keeps_its_form",
  "state in bfloat16": "state_keeps_its_form",
  "step returns the state in bfloat16": "parallel_is_prefill_then_steps",
  "step forgets the last input": "parallel_is_prefill_then_steps",
  "returns float32": "bfloat16_keeps_a_float32_state",
}


# the import hook, and so the check of shapes, does not reach classes of a test file
CHECKED = [name for name, (_, states) in CHECKS.items() if "fixed" in states and name != "refuses_wrong_shapes"]


@pytest.mark.parametrize("check", CHECKED)
def test_honest_mixer_passes(check):
  CHECKS[check][0](honest())


def test_unchecked_shapes_are_caught():
  with pytest.raises((ValueError, pytest.fail.Exception)):
    CHECKS["refuses_wrong_shapes"][0](honest())


@functools.cache
def honest() -> Case:
  return Case(Toy(), count=COUNT)


@pytest.mark.parametrize("bug, check", BUGS.items())
def test_broken_mixer_is_caught(bug, check):
  # a scan refuses a carry of another dtype before the check can
  expected = TypeError if bug == "step returns the state in bfloat16" else AssertionError
  with pytest.raises(expected):
    CHECKS[check][0](Case(Toy(bug=bug), count=COUNT))


class Backward(Toy):
  """A reversed scan that flips whole rows, padding and packed documents included."""

  STATE = "none"

  def __call__(self, x, *, reset=None, lengths=None, side=None):
    flip = lambda value: None if value is None else jnp.flip(value, axis=1)
    return flip(super().__call__(flip(x), reset=flip(reset), side=side))


class NoFuture(Toy):
  STATE = "none"


class Endless(Toy):
  STATE = "grows"


@pytest.mark.parametrize(
  "module, check",
  [
    (Endless(), "full_cache_turns_the_row_to_nan"),
    (Endless(), "state_keeps_its_form"),
    (Backward(), "call_ignores_what_lies_past_lengths"),
    (Backward(), "call_gradients_ignore_what_lies_past_lengths"),
    (Backward(), "call_separates_documents"),
    (NoFuture(), "causal"),
    (Toy(inner=7), "counts_its_parameters"),
  ],
)
def test_wrong_kinds_and_declarations_are_caught(module, check):
  with pytest.raises(AssertionError):
    CHECKS[check][0](Case(module, count=COUNT))
