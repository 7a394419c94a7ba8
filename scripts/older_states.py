"""What runs stored before 2026-12-01 otherwise than today, for scripts/convert.py.

Updates that `optimizer.skip` leaves out stood in optax's `conditionally_mask`, which counts none of them; parameters in
bfloat16 had no copies in float32, and moments of their own type; statistics of batch norm were "buffers".
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from training import masters, optimizer, spikes
from training.state import TrainState

KEPT, LEARNED = "buffers", "batch_stats"


def before(state: TrainState, params: Any, *, steps: int, section: Mapping[str, Any]) -> TrainState:
  """Returns the shapes of a state of today as they were stored.

  Args:
    params: their shapes in boxes of axis names.
    section: the config's optimizer.
  """
  settings = {**section, "skip": 0.0, "spike": 0.0}
  tx = optimizer.build(jax.eval_shape(masters.wide, params), steps=steps, **settings)
  if section.get("skip"):
    tx = optax.conditionally_mask(tx, lambda _, grad_norm: True, forward_extra_args=True)
  buffers = dict(state.buffers)
  learned = buffers.pop(LEARNED, None)
  if learned is not None:
    buffers[KEPT] = _joined(buffers.get(KEPT, {}), learned)
  return state._replace(opt=jax.eval_shape(tx.init, state.params), buffers=buffers)


def after(old: TrainState, like: TrainState) -> TrainState:
  """Turns a state that was stored into one of today, whose shapes are `like`.

  Copies in float32 start at the rounded parameters, and what is usual for a norm is measured anew.
  """
  inner = old.opt.inner_state if isinstance(like.opt, spikes.Spikes) else old.opt
  wanted = like.opt.inner if isinstance(like.opt, spikes.Spikes) else like.opt
  if isinstance(wanted, masters.Masters):
    opt: Any = masters.Masters(masters.wide(old.params), _cast(inner, wanted.inner))
  else:
    opt = _cast(inner, wanted)
  if isinstance(like.opt, spikes.Spikes):
    opt = spikes.Spikes(jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32), jnp.zeros([]), opt)
  buffers = dict(old.buffers)
  if LEARNED in like.buffers:
    kept = buffers.pop(KEPT)
    buffers |= {name: _chosen(kept, like.buffers[name]) for name in (KEPT, LEARNED) if name in like.buffers}
  return old._replace(opt=opt, buffers=buffers)


def _cast(tree: Any, like: Any) -> Any:
  return jax.tree.map(lambda z, one: z.astype(one.dtype), tree, like)


def _joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the arrays of two nested dicts in one."""
  made = dict(one)
  for key, value in other.items():
    made[key] = _joined(made[key], value) if key in made else value
  return made


def _chosen(tree: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the arrays of a nested dict that another one has, too."""
  return {key: _chosen(tree[key], one) if isinstance(one, Mapping) else tree[key] for key, one in like.items()}
