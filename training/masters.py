"""Float32 copies of parameters that are kept in bfloat16."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class Masters(NamedTuple):
  """The state of `with_masters`: the parameters in float32, and the rest; no parameters where nothing is updated."""

  params: Any
  inner: Any


def wide(tree: Any) -> Any:
  """Returns the arrays in at least float32."""
  return jax.tree.map(lambda z: z.astype(jnp.promote_types(z.dtype, jnp.float32)), tree)


def narrow(params: Any) -> bool:
  """Returns whether some parameters have less than float32."""
  return any(leaf.dtype != jnp.promote_types(leaf.dtype, jnp.float32) for leaf in jax.tree.leaves(params))


def with_masters(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
  """Updates copies of the parameters in float32, which the parameters follow rounded.

  Else an update below 1/256 of a bfloat16 parameter would be lost, however often it comes. Moments, weight decay and
  averages are of the copies (Micikevicius et al. 2018, arXiv:1710.03740, sec. 3.1).
  """
  inner = optax.with_extra_args_support(inner)

  def init(params: Any) -> Masters:
    masters = wide(params)
    return Masters(masters, inner.init(masters))

  def update(updates: Any, state: Masters, params: Any = None, **extra: Any) -> Any:
    made, after = inner.update(wide(updates), state.inner, state.params, **extra)
    masters = optax.apply_updates(state.params, made)
    rounded = lambda new, old: new.astype(old.dtype).astype(new.dtype) - old.astype(new.dtype)
    return jax.tree.map(rounded, masters, params), Masters(masters, after)

  return optax.GradientTransformationExtraArgs(init, update)
