"""Token after token: what the cells share whose nonlinear recurrence has no parallel form."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels import inputs
from layers.dense import project
from layers.initializers import Initializer
from layers.lengths import blank_past


def loop(
  cell: Callable[[Any, Any], tuple[Any, Any]],
  state: Any,
  entered: Float[Array, "b t ..."],
  *,
  reset: Bool[Array, "b t"] | None = None,
  lengths: Int[Array, "b"] | None = None,
) -> tuple[Float[Array, "b t ..."], Any]:
  """state, y_t = cell(state, entered_t) for every token, in at least float32; returns all y and the last state.

  `reset` sets the state, a tree of "b ..." arrays, to zero before a token; past `lengths` it stands still.
  """
  dtype = inputs.compute_dtype(entered, *jax.tree.leaves(state))
  here = None if lengths is None else inputs.valid(lengths, entered.shape[1])
  clear = reset if reset is None or here is None else reset & here

  def token(state, given):
    entered, clear, here = given
    state = state if clear is None else _choose(clear, jax.tree.map(jnp.zeros_like, state), state)
    after, y = cell(state, entered)
    return (after if here is None else _choose(here, after, state)), y

  state, entered = jax.tree.map(lambda z: z.astype(dtype), (state, entered))
  over_time = jax.tree.map(lambda z: z.swapaxes(0, 1), (entered, clear, here))
  last, y = jax.lax.scan(token, state, over_time)
  return y.swapaxes(0, 1), last


class Recurrent(nn.Module):
  """A mixer that hands W x + bias to its `cell(state, entered) -> (state, y)`, token by token.

  The subclass has `cell`, the parameters W and bias, `init_state` and what a mixer states.
  """

  def enter(self, x: Float[Array, "*b d"]) -> Float[Array, "*b g"]:
    """W x + bias in at least float32: what tokens contribute whatever the state."""
    return project(x, self.W, jnp.promote_types(x.dtype, jnp.float32)) + self.bias

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b t d"]:
    """All tokens from an empty state."""
    return self.prefill(x, self.init_state(*x.shape[:2]), reset=reset, lengths=lengths)[0]

  def prefill(
    self,
    x: Float[Array, "b t d"],
    state: Any,
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> tuple[Float[Array, "b t d"], Any]:
    """All tokens from `state`."""
    x = blank_past(x, lengths)
    y, state = loop(self.cell, state, self.enter(x), reset=reset, lengths=lengths)
    return blank_past(y.astype(x.dtype), lengths), state

  def step(
    self, x: Float[Array, "b d"], state: Any, *, side: Mapping[str, Array] | None = None
  ) -> tuple[Float[Array, "b d"], Any]:
    """One token."""
    state, y = self.cell(state, self.enter(x))
    return y.astype(x.dtype), state


def side_by_side(init: Initializer, count: int) -> Initializer:
  """`init` for each of `count` matrices that are stored as one, next to each other."""

  def make(key, shape, dtype=jnp.float32):
    one = (*shape[:-1], shape[-1] // count)
    return jnp.concatenate([init(key, one, dtype) for key in jax.random.split(key, count)], axis=-1)

  return make


def _choose(mask: Bool[Array, "b"], yes: Any, no: Any) -> Any:
  return jax.tree.map(lambda a, b: jnp.where(jax.lax.expand_dims(mask, range(1, a.ndim)), a, b), yes, no)
