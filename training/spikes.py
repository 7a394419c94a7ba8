"""Updates that are left out, as their gradient is far larger than usual."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

# from so many updates on their norms say what is usual; the mean looks about as far back
SETTLED = 100


class Spikes(NamedTuple):
  """The state of `without_spikes`: how many updates there were and were left out, the usual norm, and the rest."""

  updates: jax.Array
  skipped: jax.Array
  usual: jax.Array
  inner: Any


def without_spikes(
  inner: optax.GradientTransformationExtraArgs, *, limit: float, factor: float
) -> optax.GradientTransformationExtraArgs:
  """Leaves out updates whose `grad_norm` is above `limit`, or above `factor` times the running mean of the norms.

  Parameters and moments stay as they were; the schedule goes on, as it counts steps. A norm above the limit enters the
  mean as the limit, so that gradients which stay large are taken after a while. One that is not finite is left out.

  Args:
    limit, factor: 0 is off.
  """
  inner = optax.with_extra_args_support(inner)

  def init(params: Any) -> Spikes:
    zero = jnp.zeros([], jnp.int32)
    return Spikes(zero, zero, jnp.zeros([], jnp.float32), inner.init(params))

  def update(updates: Any, state: Spikes, params: Any = None, *, grad_norm: jax.Array, **extra: Any) -> Any:
    most = jnp.float32(limit or math.inf)
    if factor:
      most = jnp.minimum(most, jnp.where(state.updates < SETTLED, math.inf, factor * state.usual))
    take = grad_norm <= most
    made, after = inner.update(updates, state.inner, params, **extra)
    seen = jnp.where(jnp.isfinite(grad_norm), jnp.minimum(grad_norm, most), state.usual)
    usual = state.usual + (seen - state.usual) / jnp.minimum(state.updates + 1, SETTLED)
    counts = state.updates + 1, state.skipped + ~take
    made = jax.tree.map(lambda z: jnp.where(take, z, jnp.zeros_like(z)), made)
    return made, Spikes(*counts, usual, _chosen(take, after, state.inner))

  return optax.GradientTransformationExtraArgs(init, update)


def _chosen(take: jax.Array, after: Any, before: Any) -> Any:
  is_count = lambda node: isinstance(node, optax.ScaleByScheduleState)
  choose = lambda new, old: new if is_count(new) else jnp.where(take, new, old)
  return jax.tree.map(choose, after, before, is_leaf=is_count)


def skipped(opt_state: Any) -> dict[str, float]:
  """Returns how many updates were left out so far, as a metric; nothing where none can be."""
  is_spikes = lambda node: isinstance(node, Spikes)
  found = [node for node in jax.tree.leaves(opt_state, is_leaf=is_spikes) if is_spikes(node)]
  return {"train/skipped": float(found[0].skipped)} if found else {}
