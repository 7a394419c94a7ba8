"""The state that a training step reads and writes, and its initialisation on the devices."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, UInt32

from hybrids.objective import measure
from mistake import Mistake
from training import optimizer, sharding


class Seen(NamedTuple):
  """Sums since the last row of metrics; they stay on the device, so training never waits for them."""

  sums: dict[str, tuple[Array, Array]]
  grad_norm: Float[Array, ""]  # added up
  updates: Int[Array, ""]
  first_bad_step: Int[Array, ""]  # 0: none


def nothing_seen(sums: Any) -> Seen:
  """Returns the Seen before any update, all 0; `sums` holds the sums that an update measures, or their shapes."""
  zero = lambda dtype: jnp.zeros([], dtype)
  sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), sums)
  return Seen(sums, zero(jnp.float32), zero(jnp.int32), zero(jnp.int32))


class TrainState(NamedTuple):
  """The part of a checkpoint that belongs to the model and its optimizer."""

  step: Int[Array, ""]  # updates done
  params: Any
  buffers: Any  # Linen's other collections: running statistics
  opt: Any
  rng: UInt32[Array, "2"]  # never advanced: step n draws from fold_in(rng, n)
  carry: Any  # the recurrent state between batches of a stateful task, else ()
  seen: Seen

  @property
  def variables(self) -> dict[str, Any]:
    """Returns variables for evaluation and generation; parameters are averages where the optimizer keeps them."""
    return {"params": optimizer.averaged(self.opt, self.params), **self.buffers}


def example(task: Any, batch: int = 1, length: int | None = None) -> jax.ShapeDtypeStruct:
  """Returns the shape of a task's inputs: tokens `b t` or features `b t f`; `b 2 t` of pairs of documents."""
  axes = (batch, *(2,) * (task.head == "dual_encoder"), length or task.length)
  return (
    jax.ShapeDtypeStruct((*axes, task.features), jnp.float32)
    if task.features
    else jax.ShapeDtypeStruct(axes, jnp.int32)
  )


def tokens(inputs: jax.ShapeDtypeStruct) -> int:
  """Returns how many tokens such inputs have, see `example`: those of both documents of a pair."""
  axes = inputs.shape[:-1] if jnp.issubdtype(inputs.dtype, jnp.floating) else inputs.shape
  return math.prod(axes)


def variables_shape(model: nn.Module, task: Any) -> dict[str, Any]:
  """Returns the shapes of the model's variables in their boxes of axis names; nothing is allocated.

  Raises:
    ValueError: what the model's parts say about their settings.
  """
  return dict(jax.eval_shape(model.init, jax.random.PRNGKey(0), shortest(model, task)))


def shortest(model: nn.Module, task: Any) -> jax.ShapeDtypeStruct:
  """Returns the inputs to initialise with: one token, as no parameter's shape depends on the length, or a whole row."""
  return example(task, length=1 if getattr(model, "reads_pieces", True) else None)


def measured(model: nn.Module, variables: Any, task: Any) -> dict[str, tuple[Any, Any]]:
  """Returns the shapes of the sums that an update measures."""
  batch = model.example(task.batch, 1 if getattr(model, "reads_pieces", True) else task.length)
  return jax.eval_shape(lambda variables, batch: measure(model, variables, batch)[1], variables, batch)


def carries(model: nn.Module, *, stateful: bool) -> bool:
  """Returns whether the recurrent state goes from batch to batch.

  Raises:
    ValueError: it is asked for, and the model's state cannot be carried without end.
  """
  if not stateful:
    return False
  if model.STATE not in ("fixed", "window"):
    raise Mistake(
      f"data.stateful=True carries the state from batch to batch, but this model's state is {model.STATE!r}; "
      "use mixers whose state is 'fixed' or 'window', or data.stateful=False"
    )
  return True


def blueprint(
  model: nn.Module, task: Any, tx: optax.GradientTransformation, mesh: Mesh | AbstractMesh, *, stateful: bool
) -> tuple[Callable[[int], TrainState], TrainState]:
  """Returns a function from a seed to a fresh sharded state, and that state's shapes with shardings."""

  def create(seed: jax.Array) -> TrainState:
    rng = jax.random.PRNGKey(seed)
    inputs = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shortest(model, task))
    buffers = dict(nn.meta.unbox(model.init(jax.random.fold_in(rng, jnp.uint32(0xFFFFFFFF)), inputs)))
    params = buffers.pop("params")
    carry = model.init_state(task.batch, task.length) if stateful else ()
    seen = nothing_seen(measured(model, {"params": params, **buffers}, task))
    return TrainState(jnp.zeros([], jnp.int32), params, buffers, tx.init(params), rng, carry, seen)

  seed = np.int32(0)
  shapes = jax.eval_shape(create, seed)
  buffers = sharding.of_variables(variables_shape(model, task), mesh)
  params = buffers.pop("params")
  whole: Any = NamedSharding(mesh, PartitionSpec())
  opt = sharding.of_optimizer(shapes.opt, shapes.params, params, mesh)
  seen = jax.tree.map(lambda _: whole, shapes.seen)
  places = TrainState(whole, params, buffers, opt, whole, sharding.of_rows(shapes.carry, mesh), seen)
  struct = lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
  init = jax.jit(create, out_shardings=places)
  return lambda seed: init(np.int32(seed)), jax.tree.map(struct, shapes, places)


def count(params: Any) -> int:
  """Returns the number of parameters."""
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def with_average(opt: Any, params: Any) -> Any:
  """Returns the optimizer's state, with its average of the parameters, if it keeps one, starting from `params`."""
  renew = lambda node: optimizer.renewed(node, params)
  return jax.tree.map(renew, opt, is_leaf=optimizer.is_average)


def to_look_at(like: TrainState) -> TrainState:
  """Returns the shapes that evaluation and generation need: those of the variables, without a batch's size."""
  opt = jax.tree.map(optimizer.without_moments, like.opt, is_leaf=optimizer.is_average)
  nothing: Any = None
  return like._replace(opt=opt, carry=(), seen=nothing)
