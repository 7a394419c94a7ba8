"""Running a nonlinear recurrence token after token, which has no parallel form."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels import inputs, op, sequence_parallel
from layers.dense import project
from layers.initializers import Initializer
from layers.mixer import Mixer, Where


def loop(
  cell: Callable[..., tuple[Any, Any]],
  state: Any,
  entered: Float[Array, "b t ..."],
  *parameters: Float[Array, "..."],
  reset: inputs.Reset = None,
  lengths: inputs.Lengths = None,
) -> tuple[Float[Array, "b t ..."], Any]:
  """Runs state, y_t = cell(state, entered_t, *parameters) for every token; returns all y and the last state.

  It computes in at least float32. `reset`, which is never True in the padding, sets the state, a tree of "b ..."
  arrays, to zero before a token; in the padding the state stands still. Devices that share the time run in turn.
  """
  dtype = inputs.compute_dtype(entered, *jax.tree.leaves(state))
  state, entered = jax.tree.map(lambda z: z.astype(dtype), (state, entered))

  def run(state, entered, reset, valid, *parameters):
    return op.recur(lambda state, entered: cell(state, entered, *parameters), state, entered, reset, valid)

  valid = None if lengths is None else inputs.valid(lengths, entered.shape[1])
  axes = "b", "b t", "b t", "b t", *("",) * len(parameters)
  over = sequence_parallel.Over(axes, "b t", 0, sequence_parallel.InTurn())
  return over(run, state, entered, reset, valid, *parameters)


class Recurrent(Mixer):
  """A mixer that runs `cell(state, entered, *recurrent) -> (state, y)` over entered = W x + bias.

  A subclass has the parameters W and bias, `init_state`, `cell` and `recurrent`, the parameters that a cell reads; or
  `mix`, where an op runs all tokens.
  """

  def enter(self, x: Float[Array, "b t d"]) -> Float[Array, "b t g"]:
    """Returns W x + bias in at least float32."""
    return project(x, self.W, jnp.promote_types(x.dtype, jnp.float32)) + self.bias

  def mix(self, x: Float[Array, "b t d"], state: Any, where: Where) -> tuple[Float[Array, "b t d"], Any]:
    y, state = loop(self.cell, state, self.enter(x), *self.recurrent, **where.masks)
    return y.astype(x.dtype), state


def side_by_side(init: Initializer, count: int) -> Initializer:
  """Returns an initialiser that draws `count` matrices from `init` and stores them as one, next to each other."""

  def make(key, shape, dtype=jnp.float32):
    one = (*shape[:-1], shape[-1] // count)
    return jnp.concatenate([init(key, one, dtype) for key in jax.random.split(key, count)], axis=-1)

  return make
