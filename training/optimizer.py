"""The config's optimizer section as one optax transformation.

In order: clip by the global norm; weight decay, for optimizers where it joins the gradient; moments; weight decay, for
the others; group factor and schedule; average of the parameters. Everything counts updates, `steps` and `warmup` too,
whatever number of batches (`accumulate`) makes one: see training/step.py.

Groups. A parameter declared slow (`layers.param(…, slow=True)`) gets `slow_lr` times the learning rate and no weight
decay; vectors (norms, biases, skips) and parameters declared with `decay=False` get no weight decay. Then the first row
of `groups` whose regular expression is found in the parameter's path sets what it names:
`("embed", {"weight_decay": 0.0})`, `("log_dt$", {"lr": 0.01})`, `lr` being a factor (0 freezes).
"""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mistake import Mistake
from training import schedule as schedule_lib

OPTIMIZERS: dict[str, Callable[[float, float, float], optax.GradientTransformation]] = {
  "adabelief": lambda b1, b2, eps: optax.scale_by_belief(b1, b2, eps),
  "adam": lambda b1, b2, eps: optax.scale_by_adam(b1, b2, eps),
  "adamw": lambda b1, b2, eps: optax.scale_by_adam(b1, b2, eps),
  "lion": lambda b1, b2, eps: optax.scale_by_lion(b1, b2),
  "nadamw": lambda b1, b2, eps: optax.scale_by_adam(b1, b2, eps, nesterov=True),
  "radam": lambda b1, b2, eps: optax.scale_by_radam(b1, b2, eps),
  "rmsprop": lambda b1, b2, eps: optax.scale_by_rms(b2, eps),
  "sgd": lambda b1, b2, eps: optax.trace(b1) if b1 else optax.identity(),
}
# weight decay is part of the gradient here, as in the papers; everywhere else it is decoupled
COUPLED = ("adam", "rmsprop", "sgd")


class Group(NamedTuple):
  """The factor of the learning rate and the weight decay of one parameter."""

  lr: float
  weight_decay: float


def build(
  params: Any,
  *,
  steps: int,
  name: str = "adamw",
  lr: float = 1e-3,
  schedule: str = "cosine",
  warmup: int = 0,
  final_lr: float = 0.0,
  decay: float = 0.1,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 0.0,
  clip: float = 0.0,
  accumulate: int = 1,
  ema: float = 0.0,
  slow_lr: float = 1.0,
  groups: Sequence[Any] = (),
) -> optax.GradientTransformation:
  """Builds the transformation for `params` (arrays or shapes, in Linen's boxes or not); see the module's docstring.

  Args:
    steps, schedule, warmup, final_lr, decay: see training/schedule.py.
    clip, ema: 0 is off.
    accumulate: batches of one update, as if they were one large batch; the loop takes so many.
  Raises:
    ValueError: an unknown name, a value out of its range, or a row of `groups` that takes no parameter.
  """
  if name not in OPTIMIZERS:
    raise Mistake(f"optimizer.name={name!r}; choose one of {', '.join(OPTIMIZERS)}")
  for key, value, fine, need in (
    ("clip", clip, 0 <= clip < math.inf, "0 (off) or more"),
    ("eps", eps, 0 <= eps < math.inf, "0 or more"),
    ("accumulate", accumulate, accumulate >= 1, "1 or more"),
    ("ema", ema, 0 <= ema < 1, "0 (off) or a decay below 1"),
    ("b1", b1, 0 <= b1 < 1, "at least 0 and below 1"),
    ("b2", b2, 0 <= b2 < 1, "at least 0 and below 1"),
    ("weight_decay", weight_decay, 0 <= weight_decay < math.inf, "0 (off) or more"),
    ("slow_lr", slow_lr, 0 <= slow_lr < math.inf, "0 (frozen) or more"),
  ):
    if not fine:
      raise Mistake(f"optimizer.{key}={value}; it must be {need}")
  rate = schedule_lib.learning_rate(
    lr=lr, schedule=schedule, warmup=warmup, final_lr=final_lr, decay=decay, steps=steps
  )
  rules = assign(params, weight_decay=weight_decay, slow_lr=slow_lr, groups=groups)
  decay = _decay({path: rule.weight_decay for path, rule in rules.items()})
  factors = {path: rule.lr for path, rule in rules.items()}
  # a place of its own even when it is off, so that --from-step can turn it on
  parts = [optax.clip_by_global_norm(clip) if clip else optax.identity()]
  parts += [decay, OPTIMIZERS[name](b1, b2, eps)] if name in COUPLED else [OPTIMIZERS[name](b1, b2, eps), decay]
  parts.append(_scale(factors, lambda count: -rate(count)))
  if ema:
    parts.append(average(ema))
  return optax.chain(*parts)


def assign(
  params: Any,
  *,
  weight_decay: float,
  slow_lr: float,
  groups: Sequence[Any],
) -> dict[str, Group]:
  """Returns the Group of every parameter, by path.

  Raises:
    ValueError: a row is malformed, or takes no parameter.
  """
  rows = [_check_row(row) for row in groups]
  taken = [0] * len(rows)
  rules = {}
  for path, kind in _paths(params).items():
    group = {"lr": 1.0, "weight_decay": weight_decay if kind.decay else 0.0}
    if kind.slow:
      group = {"lr": slow_lr, "weight_decay": 0.0}
    row = next((i for i, (regex, _) in enumerate(rows) if re.search(regex, path)), None)
    if row is not None:
      taken[row] += 1
      group |= rows[row][1]
    rules[path] = Group(**group)
  for (regex, _), count in zip(rows, taken):
    if not count:
      earlier = any(re.search(regex, path) for path in rules)
      why = "takes no parameter that an earlier row has not taken" if earlier else "matches no parameter"
      raise Mistake(f"optimizer.groups row {regex!r} {why}; parameters are for example {', '.join(_sample(rules))}")
  return rules


def _check_row(row: Any) -> tuple[str, dict[str, float]]:
  try:
    regex, settings = row
    re.compile(regex)
    settings = {key: float(value) for key, value in dict(settings).items()}
    if not all(map(math.isfinite, settings.values())):
      raise Mistake("its numbers must be finite")
  except (TypeError, ValueError, re.error) as error:
    raise Mistake(
      f"optimizer.groups row {row!r} is not (regular expression, {{'lr': factor, 'weight_decay': value}}): {error}"
    ) from None
  unknown = set(settings) - set(Group._fields)
  if unknown:
    raise Mistake(f"optimizer.groups row {regex!r} sets {sorted(unknown)}; it can set {', '.join(Group._fields)}")
  return regex, settings


def _sample(paths: Collection[str], count: int = 5) -> list[str]:
  """Returns some of the paths, spread over all of them."""
  return list(paths)[:: max(len(paths) // count, 1)][:count]


class Kind(NamedTuple):
  """The declaration of a parameter: whether it is `slow`, and whether it has weight decay."""

  slow: bool
  decay: bool


def _paths(params: Any) -> dict[str, Kind]:
  """Returns the Kind of every parameter, by path. A vector has no decay, not counting the axis over stacked layers."""
  boxed = lambda leaf: isinstance(leaf, nn.meta.AxisMetadata)
  kinds = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(params, is_leaf=boxed):
    value, names = (leaf.value, leaf.names) if isinstance(leaf, nn.meta.Partitioned) else (leaf, ())
    decay = getattr(leaf, "decay", True) and value.ndim - names.count("layers") > 1
    kinds[_name(path)] = Kind(getattr(leaf, "slow", False), decay)
  return kinds


def _name(path: Any) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")


def _decay(factors: Mapping[str, float]) -> optax.GradientTransformation:
  def add(update: Any, _state: Any, params: Any) -> Any:
    plus = lambda path, u, p: u + factors[_name(path)] * p if factors[_name(path)] else u
    return jax.tree_util.tree_map_with_path(plus, update, params), _state

  return optax.GradientTransformation(lambda _: optax.EmptyState(), add)


def _scale(factors: Mapping[str, float], rate: optax.Schedule) -> optax.GradientTransformation:
  def scale(update: Any, state: optax.ScaleByScheduleState, _params: Any = None) -> Any:
    now = rate(state.count)
    times = lambda path, u: (now * factors[_name(path)]).astype(u.dtype) * u
    return jax.tree_util.tree_map_with_path(times, update), optax.ScaleByScheduleState(state.count + 1)

  return optax.GradientTransformation(lambda _: optax.ScaleByScheduleState(jnp.zeros([], jnp.int32)), scale)


class Average(NamedTuple):
  """The state of `average`: the number of updates, and the averaged parameters."""

  updates: jax.Array
  params: Any


def average(decay: float) -> optax.GradientTransformation:
  """Exponential moving average of the parameters, kept in its state; passes the updates on as they are.

  The decay of update n is min(decay, (1 + n)/(10 + n)), so a short run is not all initial parameters. Must come last
  in a chain, where the updates are what will be added.
  """

  def init(params: Any) -> Average:
    return Average(jnp.zeros([], jnp.int32), jax.tree.map(jnp.array, params))

  def update(updates: Any, state: Average, params: Any) -> Any:
    keep = jnp.minimum(decay, (1 + state.updates) / (10 + state.updates))
    mix = lambda old, new: (keep * old + (1 - keep) * new).astype(old.dtype)
    return updates, Average(state.updates + 1, jax.tree.map(mix, state.params, optax.apply_updates(params, updates)))

  return optax.GradientTransformation(init, update)


def averaged(opt_state: Any, params: Any) -> Any:
  """Returns the parameters for evaluation and generation: averaged if the optimizer keeps an average, else `params`."""
  is_average = lambda node: isinstance(node, Average)
  found = [node for node in jax.tree.leaves(opt_state, is_leaf=is_average) if is_average(node)]
  return found[0].params if found else params
