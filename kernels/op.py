"""The common entry of ops over time: padding, document starts, calls with no or one token, choice of implementation.

An implementation takes the op's arrays in the dtype of the computation, and `reset`, True at the first token of each
document. It need not know that rows are padded: at padding the op has made its inputs neutral, so that the state
stands still.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Inexact, Shaped

from kernels import dispatch, inputs, nonfinite


class Rows(NamedTuple):
  """Which tokens of a batch are padding, and which start a document."""

  valid: Bool[Array, "b t"] | None = None  # False at padding; None: there is none
  reset: inputs.Reset = None  # True at the first token of a document, never at padding; None: nowhere
  lengths: inputs.Lengths = None  # tokens of each row, from 0 to t

  def fill(self, *arrays: Shaped[Array, "b t ..."] | None, value: float = 0) -> tuple[Any, ...]:
    """Returns the arrays with `value` at padding."""
    return inputs.blank(self.valid, *arrays, value=value)


def rows(t: int, reset: inputs.Reset, lengths: inputs.Lengths) -> Rows:
  """Makes the masks of t tokens; padding starts no document."""
  if lengths is None:
    return Rows(reset=reset)
  valid = inputs.valid(lengths, t)
  return Rows(valid, None if reset is None else reset & valid, jnp.clip(lengths, 0, t))


def cast(dtype: DTypeLike, *arrays: Inexact[Array, "..."] | None) -> tuple[Any, ...]:
  """Casts the arrays to a dtype; None stays None."""
  return tuple(None if z is None else z.astype(dtype) for z in arrays)


def run(
  name: str,
  impls: dispatch.Impls,
  impl: str,
  args: tuple[Any, ...],
  where: Rows,
  *,
  out: Shaped[Array, "b t ..."],
  state: Any,
  one_token: Callable[..., tuple[Array, Any]] | None = None,
  after: Bool[Array, "b t"] | None = None,
  over: Any = None,
) -> tuple[Array, Any]:
  """Returns the outputs y, 0 at padding, and the last state, by the implementation that `dispatch` picks.

  Args:
    args: the arguments of the implementations.
    out: has the shape and the dtype of y.
    state: the state before the first token, which is also the last one if there is no token or no row.
    one_token: the implementation for a single token, which is taken unless another is asked for by name.
    after: the mask of `nonfinite.contain`, whose tokens have y = NaN.
    over: how devices share the time axis, if they can.
  """
  if 0 in out.shape[:2]:
    return jnp.zeros(out.shape, out.dtype), state
  form = _picked(name, impls, impl, out, one_token)
  y, last = nonfinite.mark(after, *(form(*args) if over is None else over(form, *args)))
  return where.fill(y)[0].astype(out.dtype), last


def outputs(
  name: str,
  impls: dispatch.Impls,
  impl: str,
  args: tuple[Any, ...],
  where: Rows,
  *,
  out: Shaped[Array, "b t ..."] | jax.ShapeDtypeStruct,
  one_token: Callable[..., Array] | None = None,
  over: Any = None,
  **settings: Any,
) -> Array:
  """Does the same as `run` for an op without a state, whose implementations return y alone.

  Args:
    settings: keyword arguments of the implementations.
  """
  if 0 in out.shape[:2]:
    return jnp.zeros(out.shape, out.dtype)
  form = _picked(name, impls, impl, out, one_token, **settings)
  y = form(*args) if over is None or out.shape[1] == 1 else over(form, *args)
  return where.fill(y)[0].astype(out.dtype)


def _picked(name, impls, impl, out, one_token, **settings) -> Callable:
  """Returns a function that picks an implementation for its arguments, which may be one device's part of all."""
  if one_token is not None and impl == "auto" and out.shape[1] == 1:
    return functools.partial(one_token, **settings)
  return lambda *args: dispatch.pick(name, impls, impl, *args, **settings)(*args, **settings)


def loop(
  token: Callable[[Any, Any], tuple[Any, Array]], state: Any, tokens: Any
) -> tuple[Shaped[Array, "b t ..."], Any]:
  """Applies `state, y = token(state, one of the tokens)` in turn, and returns all y and the last state.

  A single token needs no loop.

  Args:
    tokens: a tree of "b t ..." arrays.
  """
  if jax.tree.leaves(tokens)[0].shape[1] == 1:
    state, y = token(state, jax.tree.map(lambda z: z[:, 0], tokens))
    return y[:, None], state
  state, y = jax.lax.scan(token, state, jax.tree.map(lambda z: z.swapaxes(0, 1), tokens))
  return y.swapaxes(0, 1), state


def recur(
  cell: Callable[[Any, Array], tuple[Any, Array]],
  state: Any,
  entered: Shaped[Array, "b t ..."],
  reset: inputs.Reset,
  valid: Bool[Array, "b t"] | None,
) -> tuple[Shaped[Array, "b t ..."], Any]:
  """Runs `state, y = cell(state, entered_t)` for every token, and returns all y and the last state.

  Where a document starts the state, a tree of arrays, is zero before the token; at padding it stands still.
  """

  def token(state, now):
    entered, reset, valid = now
    state = jax.tree.map(functools.partial(cleared, reset), state)
    after, y = cell(state, entered)
    return after if valid is None else jax.tree.map(functools.partial(inputs.where, valid), after, state), y

  return loop(token, state, (entered, reset, valid))


def cleared(reset: Bool[Array, "..."] | None, z: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
  """Returns z, a state before a token or decays of tokens, with zeros where a document starts; None: nowhere."""
  return z if reset is None else inputs.where(reset, 0, z)


def read(S: Inexact[Array, "b h k p"], q: Inexact[Array, "b h k"]) -> Inexact[Array, "b h p"]:
  """Returns S^T q for each head. On CPUs this product is up to ten times as fast as a sum of products over k."""
  return jnp.einsum("bhkp,bhk->bhp", S, q, precision=jax.lax.Precision.HIGHEST)
