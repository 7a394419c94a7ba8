"""One update: loss, gradient, optimizer, and the sums for the next row of metrics."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from hybrids.body.stack import FROZEN_IN_EVALUATION
from hybrids.objective import measure
from training import losses
from training.state import Seen, TrainState, nothing_seen


def make_gradient(model: nn.Module, *, stateful: bool = False) -> Callable:
  """(params, state, batch) -> ((objective, (sums, buffers, carry)), gradient); see `hybrids.objective.measure`.

  With `stateful` the recurrent state comes from the batch before: gradients stop there, and a reset clears it.
  """

  def objective(params: Any, state: TrainState, batch: Mapping[str, Any], part: Any = None) -> Any:
    variables = {"params": params, **state.buffers}
    key = jax.random.fold_in(state.rng, state.step)
    rngs = {"dropout": key if part is None else jax.random.fold_in(key, part)}
    if stateful:
      # batch norm goes on from averages here, as in evaluation
      changing = [name for name in state.buffers if name not in FROZEN_IN_EVALUATION]
      value, sums, buffers, carry = measure(model, variables, batch, state.carry, mutable=changing, rngs=rngs)
      return value, (sums, {**state.buffers, **buffers}, carry)
    value, sums, buffers, _ = measure(model, variables, batch, mutable=list(state.buffers), rngs=rngs)
    return value, (sums, buffers, state.carry)

  return jax.value_and_grad(objective, has_aux=True)


def _accumulated(gradient: Callable, state: TrainState, batches: tuple[Mapping[str, Any], ...]) -> Any:
  """Returns the gradient of several batches as if they were one: each counts by the weight of what it predicts.

  The summed losses of all batches are divided by their summed weights, so that a batch of few tokens counts little.
  Losses that mixers and heads sow, such as the balance of experts, are averaged with the same weights, which is not
  what they are in one large batch. Buffers and the recurrent state go from batch to batch.
  """
  wide = lambda tree: jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), tree)

  def one(before: Any, now: Any) -> Any:
    (value, grads, weight, sums, buffers, carry), (part, batch) = before, now
    resumed = state._replace(buffers=buffers, carry=carry)
    (mean, (new, buffers, carry)), own = gradient(state.params, resumed, batch, part)
    share = new["loss"][1]
    grads = jax.tree.map(lambda total, g: total + share * g.astype(total.dtype), grads, own)
    return (value + share * mean, grads, weight + share, losses.add(sums, new), buffers, carry), None

  nothing = jax.tree.map(jnp.zeros_like, wide(state.params))
  sums = jax.tree.map(jnp.zeros_like, state.seen.sums)
  first = (jnp.zeros(()), nothing, jnp.zeros(()), sums, state.buffers, state.carry)
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)
  (value, grads, weight, sums, buffers, carry), _ = jax.lax.scan(one, first, (jnp.arange(len(batches)), stacked))
  weight = jnp.maximum(weight, 1e-30)
  grads = jax.tree.map(lambda g, p: (g / weight).astype(p.dtype), grads, state.params)
  return (value / weight, (sums, buffers, carry)), grads


def make_update(model: nn.Module, tx: optax.GradientTransformation, *, like: TrainState) -> Callable[..., TrainState]:
  """Returns the jitted update, `(state, batch, …) -> state`. It consumes the state; several batches make one update.

  `first_bad_step` is the first update whose loss or gradient is not finite; it survives later, finite ones.

  Args:
    like: shapes and shardings of the state, which it keeps; a state with a carry makes the update stateful.
  """
  tx = optax.with_extra_args_support(tx)
  gradient = make_gradient(model, stateful=bool(jax.tree.leaves(like.carry)))

  def update(state: TrainState, *batches: Mapping[str, Any]) -> TrainState:
    made = gradient(state.params, state, *batches) if len(batches) == 1 else _accumulated(gradient, state, batches)
    (value, (sums, buffers, carry)), grads = made
    norm = optax.global_norm(grads)
    updates, opt = tx.update(grads, state.opt, state.params, grad_norm=norm)
    params = optax.apply_updates(state.params, updates)
    step, seen = state.step + 1, state.seen
    fine = jnp.isfinite(value) & jnp.isfinite(norm) | (seen.first_bad_step > 0)
    bad = jnp.where(fine, seen.first_bad_step, step)
    seen = Seen(losses.add(seen.sums, sums), seen.grad_norm + norm, seen.updates + 1, bad)
    return TrainState(step, params, buffers, opt, state.rng, carry, seen)

  return jax.jit(update, donate_argnums=0, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, like))


def make_forget(*, like: TrainState) -> Callable[[], Seen]:
  """Returns a function that resets `seen` after a row of metrics, sharded as `update` expects it."""
  return jax.jit(lambda: nothing_seen(like.seen.sums), out_shardings=like.step.sharding)


def check_finite(seen: Seen) -> None:
  """Raises a FloatingPointError that names the first bad step, if there was one."""
  step = int(seen.first_bad_step)
  if step:
    raise FloatingPointError(
      f"the loss or its gradient is not finite at step {step}; nothing after it is saved. Lower optimizer.lr, raise "
      "optimizer.warmup, or set optimizer.clip, with --from-step N to go on from a checkpoint here"
    )


def report(seen: Seen, metrics: Collection[str], bytes_per_target: float = 1.0) -> dict[str, float]:
  """Returns a row of training metrics: averages over the updates since the last row.

  Args:
    bytes_per_target: see `losses.averages`.
  Raises:
    FloatingPointError: a step was not finite.
  """
  check_finite(seen)
  sown = [name for name in seen.sums if name.startswith("losses/")]
  values = {
    f"train/{name}": value for name, value in losses.averages(seen.sums, [*metrics, *sown], bytes_per_target).items()
  }
  return values | {"train/grad_norm": float(seen.grad_norm) / max(int(seen.updates), 1)}
