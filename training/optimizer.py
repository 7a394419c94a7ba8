"""The config's optimizer section as one optax transformation.

In order: clip by the global norm; weight decay, for optimizers where it joins the gradient; moments; weight decay, for
the others; group factor and schedule; average of the parameters. Where parameters are in bfloat16, all of it is done to
copies in float32. Everything counts updates, `steps` and `warmup` too, whatever number of batches (`accumulate`) makes
one: see training/step.py.

Groups. A parameter declared slow (`layers.param(…, slow=True)`) gets `slow_lr` times the learning rate and no weight
decay; vectors (norms, biases, skips) and parameters declared with `decay=False` get no weight decay. Then the first row
of `groups` whose regular expression is found in the parameter's path sets what it names:
`("embed", {"weight_decay": 0.0})`, `("log_dt$", {"lr": 0.01})`, `lr` being a factor (0 freezes).

Update rules, all of them optax's. `muon` (Jordan 2024) turns the momentum of hidden matrices, those with two named axes
of which none is the vocabulary, into nearly orthogonal ones, times 0.2 sqrt(max(rows, columns)) (Liu et al. 2025,
arXiv:2502.16982) so that AdamW's learning rate and decay fit, and is AdamW for all else. Its own momentum is 0.95; b1,
b2 and eps are AdamW's. `schedule_free_adamw` (Defazio
et al. 2024, arXiv:2405.15682) takes gradients between an average and AdamW's iterate, is evaluated at the average, and
needs schedule=constant. `ademamix` (Pagliardini et al. 2024) adds a slow average of gradients with weight 6 and decay
0.9999, without the paper's warm-up of both.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from optax import contrib

from mistake import Mistake
from training import schedule as schedule_lib
from training.masters import Masters, narrow, wide, with_masters
from training.spikes import without_spikes


class Moments(NamedTuple):
  """Holds the decays of an update rule's moments, and the matrices that it may treat as such."""

  b1: float
  b2: float
  eps: float
  matrices: Mapping[str, contrib.MuonDimensionNumbers]  # by path; hidden ones alone


def _muon(m: Moments) -> optax.GradientTransformation:
  """Returns Muon for the hidden matrices, with Adam's size of updates, and Adam for all else."""
  dimensions = lambda params: jax.tree_util.tree_map_with_path(lambda path, _: m.matrices[_name(path)], params)
  kind = lambda path, _: "muon" if _name(path) in m.matrices else "adam"
  # the learning rate of -1 undoes the sign that the library gives to updates; ours comes later
  muon = contrib.muon(-1.0, consistent_rms=0.2, muon_weight_dimension_numbers=dimensions)
  rules = {"muon": muon, "adam": optax.scale_by_adam(m.b1, m.b2, m.eps)}
  return optax.partition(rules, lambda params: jax.tree_util.tree_map_with_path(kind, params))


def _without_momentum(m: Moments) -> optax.GradientTransformation:
  return optax.scale_by_rms(m.b2, m.eps, eps_in_sqrt=False, bias_correction=True)


SCHEDULE_FREE = "schedule_free_adamw"
OPTIMIZERS: dict[str, Callable[[Moments], optax.GradientTransformation]] = {
  "adabelief": lambda m: optax.scale_by_belief(m.b1, m.b2, m.eps),
  "adam": lambda m: optax.scale_by_adam(m.b1, m.b2, m.eps),
  "adamw": lambda m: optax.scale_by_adam(m.b1, m.b2, m.eps),
  "ademamix": lambda m: contrib.scale_by_ademamix(m.b1, m.b2, eps=m.eps),
  "adopt": lambda m: contrib.scale_by_adopt(m.b1, m.b2, m.eps),
  "lion": lambda m: optax.scale_by_lion(m.b1, m.b2),
  "muon": _muon,
  "nadamw": lambda m: optax.scale_by_adam(m.b1, m.b2, m.eps, nesterov=True),
  "radam": lambda m: optax.scale_by_radam(m.b1, m.b2, m.eps),
  "rmsprop": lambda m: optax.scale_by_rms(m.b2, m.eps),
  SCHEDULE_FREE: _without_momentum,
  "sgd": lambda m: optax.trace(m.b1) if m.b1 else optax.identity(),
}
# one line each for `--list optimizers`
ABOUT: dict[str, str] = {
  "adabelief": "Adam, divided by how far gradients are from their mean (Zhuang et al. 2020)",
  "adam": "Adam; weight decay is part of the gradient (Kingma & Ba 2015)",
  "adamw": "Adam with decoupled weight decay (Loshchilov & Hutter 2019)",
  "ademamix": "AdamW with a second, slow average of gradients (Pagliardini et al. 2024)",
  "adopt": "Adam, normalised before the momentum, which converges at any b2 (Taniguchi et al. 2024)",
  "lion": "the sign of a momentum; wants a learning rate several times smaller than AdamW's (Chen et al. 2023)",
  "muon": "nearly orthogonal updates of the hidden matrices, AdamW for all else (Jordan 2024, Liu et al. 2025)",
  "nadamw": "AdamW with Nesterov's momentum (Dozat 2016)",
  "radam": "AdamW, rectified while its second moment is uncertain (Liu et al. 2020)",
  "rmsprop": "divided by the root of the mean square; weight decay is part of the gradient (Tieleman & Hinton 2012)",
  SCHEDULE_FREE: "AdamW whose average of iterates replaces the schedule (Defazio et al. 2024)",
  "sgd": "gradient descent with momentum b1; weight decay is part of the gradient",
}
# weight decay is part of the gradient here, as in the papers; everywhere else it is decoupled
COUPLED = ("adam", "rmsprop", "sgd")


# what numbers may be, and how that is said
RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
  "clip": (lambda value: 0 <= value < math.inf, "0 (off) or more"),
  "eps": (lambda value: 0 <= value < math.inf, "0 or more"),
  "accumulate": (lambda value: 1 <= value < 2**31, "1 or more, and below 2^31"),
  "ema": (lambda value: 0 <= value < 1, "0 (off) or a decay below 1"),
  "b1": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
  "b2": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
  "weight_decay": (lambda value: 0 <= value < math.inf, "0 (off) or more"),
  "skip": (lambda value: 0 <= value < math.inf, "0 (off) or a norm of the gradient"),
  "spike": (lambda value: value == 0 or 1 < value < math.inf, "0 (off) or a factor above 1"),
  "base_width": (lambda value: value >= 0, "0 (off) or a width"),
  "slow_lr": (lambda value: 0 <= value < math.inf, "0 (frozen) or more"),
}


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
  skip: float = 0.0,
  spike: float = 0.0,
  base_width: int = 0,
) -> optax.GradientTransformationExtraArgs:
  """Builds the transformation for `params` (arrays or shapes, in Linen's boxes or not); see the module's docstring.

  Args:
    steps, schedule, warmup, final_lr, decay: see training/schedule.py.
    clip, ema: 0 is off.
    accumulate: batches of one update, as if they were one large batch; the loop takes so many.
    skip: an update whose gradient has a larger norm is left out; 0 takes all. A run ends at a norm that is not finite
      whatever this is. `update` then needs the norm as `grad_norm`.
    spike: the same, as a multiple of the mean norm of about the last 100 updates; see `training.spikes`.
    base_width: the width that `lr` was found at, 0 is off; matrices that read features, but for tied tables, get
      base_width/width times the rate, so that the best one stays at any width (Everett et al. 2024, arXiv:2407.05872).
  Raises:
    ValueError: an unknown name, a value out of its range, or a row of `groups` that takes no parameter.
  """
  if name not in OPTIMIZERS:
    raise Mistake(f"optimizer.name={name!r}; choose one of {', '.join(OPTIMIZERS)}")
  _check(clip=clip, eps=eps, accumulate=accumulate, ema=ema, b1=b1, b2=b2)
  _check(weight_decay=weight_decay, skip=skip, spike=spike, base_width=base_width, slow_lr=slow_lr)
  rate = schedule_lib.learning_rate(
    lr=lr, schedule=schedule, warmup=warmup, final_lr=final_lr, decay=decay, steps=steps
  )
  rules = assign(params, weight_decay=weight_decay, slow_lr=slow_lr, groups=groups)
  kinds = _paths(params)
  decay = _decay({path: rule.weight_decay for path, rule in rules.items()})
  wider = _over_width(kinds, base_width)
  scale = _scale({path: rule.lr * wider[path] for path, rule in rules.items()}, lambda count: -rate(count))
  direction = OPTIMIZERS[name](Moments(b1, b2, eps, {path: k.matrix for path, k in kinds.items() if k.matrix}))
  # a place of its own even when it is off, so that --from-step can turn it on
  parts = [optax.clip_by_global_norm(clip) if clip else optax.identity()]
  parts += [decay, direction, scale] if name in COUPLED else [direction, decay, scale]
  if name == SCHEDULE_FREE:
    _check_schedule_free(schedule, b1, ema)
    parts = [parts[0], contrib.schedule_free(optax.chain(*parts[1:]), rate, b1)]
  if ema:
    parts.append(average(ema))
  made = with_masters(optax.chain(*parts)) if narrow(params) else optax.chain(*parts)
  return without_spikes(made, limit=skip, factor=spike) if skip or spike else optax.with_extra_args_support(made)


def _check(**values: float) -> None:
  for key, value in values.items():
    fine, need = RANGES[key]
    if not fine(value):
      raise Mistake(f"optimizer.{key}={value}; it must be {need}")


def _check_schedule_free(schedule: str, b1: float, ema: float) -> None:
  need = f"optimizer.name={SCHEDULE_FREE} averages instead of lowering the learning rate"
  if schedule != "constant":
    raise Mistake(f"optimizer.schedule={schedule!r}: {need}; set optimizer.schedule=constant")
  if not b1:
    raise Mistake(f"optimizer.b1=0: {need}, and b1 is the weight of the average; set optimizer.b1=0.9")
  if ema:
    raise Mistake(f"optimizer.ema={ema}: {need}, and needs no other average; set optimizer.ema=0")


def _over_width(kinds: Mapping[str, "Kind"], base_width: int) -> dict[str, float]:
  """Returns the factor of each parameter's learning rate, see `base_width`.

  Raises:
    Mistake: it is asked for, and no parameter has an axis "embed", whose length is the width.
  """
  widths = {size for kind in kinds.values() for axis, size in kind.axes if axis == "embed"}
  if base_width and not widths:
    raise Mistake(f"optimizer.base_width={base_width}: no parameter says how wide the model is; set it to 0")
  factor = base_width / max(widths) if base_width else 1.0
  return {path: factor if kind.reads_hidden else 1.0 for path, kind in kinds.items()}


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
  """The declaration of a parameter: whether it is `slow`, whether it has weight decay, and the names of its axes."""

  slow: bool
  decay: bool
  axes: tuple[tuple[str | None, int], ...]  # with their lengths, without those that count matrices
  leading: int  # axes that count matrices

  @property
  def reads_hidden(self) -> bool:
    """Returns whether it is a matrix whose inputs grow with the model's width: a hidden one or a read-out."""
    if len(self.axes) != 2 or self.slow or not self.decay:
      return False
    (rows, _), (columns, _) = self.axes
    return rows in FEATURES and columns not in OF_EACH

  @property
  def matrix(self) -> contrib.MuonDimensionNumbers | None:
    """Says how to read it as matrices from features to features, where it is such."""
    names = {name for name, _ in self.axes}
    if len(self.axes) != 2 or self.slow or names & {None, "hidden", "vocab"}:
      return None
    return contrib.MuonDimensionNumbers(self.leading, self.leading + 1)


# leading axes of equal matrices: one for each layer, one for each expert
LEADING = ("layers", "expert")
# axes as long as the width or a fixed share of it; "hidden" is one that no mesh divides
FEATURES = ("embed", "heads", "hidden", "inner", "kv", "mlp")
# axes of what a channel has for itself, such as the taps of its convolution: as many at every width
OF_EACH = ("state", "taps")


def _paths(params: Any) -> dict[str, Kind]:
  """Returns the Kind of every parameter, by path. A vector has no decay, not counting the axis over stacked layers."""
  boxed = lambda leaf: isinstance(leaf, nn.meta.AxisMetadata)
  kinds = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(params, is_leaf=boxed):
    value, names = (leaf.value, leaf.names) if isinstance(leaf, nn.meta.Partitioned) else (leaf, ())
    decay = getattr(leaf, "decay", True) and value.ndim - names.count("layers") > 1
    leading = sum(name in LEADING for name in names)
    axes = tuple((name, size) for name, size in zip(names, value.shape) if name not in LEADING)
    kinds[_name(path)] = Kind(getattr(leaf, "slow", False), decay, axes, leading)
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
  found = [node for node in jax.tree.leaves(opt_state, is_leaf=is_average) if is_average(node)]
  if found and isinstance(found[0], Masters):
    return averaged(found[0].inner, params)
  if found and isinstance(found[0], contrib.ScheduleFreeState):
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(params)):
      # shapes of an average are those of what it averages
      return params
    return contrib.schedule_free_eval_params(found[0], params)
  return found[0].params if found else params


def is_average(node: Any) -> bool:
  """Returns whether a part of an optimizer's state holds parameters, or what holds them."""
  return isinstance(node, (Average, contrib.ScheduleFreeState, Masters))


def renewed(node: Any, params: Any) -> Any:
  """Returns a part of an optimizer's state as it is, or one that `is_average` with the average at `params`."""
  copy = lambda: jax.tree.map(jnp.array, params)
  if isinstance(node, Masters):
    inner = jax.tree.map(lambda part: renewed(part, wide(params)), node.inner, is_leaf=is_average)
    return Masters(wide(params), inner)
  if isinstance(node, contrib.ScheduleFreeState):
    return node._replace(z=copy())
  return node._replace(params=copy()) if isinstance(node, Average) else node


def without_moments(node: Any) -> Any:
  """Returns of a part of an optimizer's state what `averaged` needs, None where that is nothing."""
  if isinstance(node, contrib.ScheduleFreeState):
    return node._replace(base_optimizer_state=None)
  if isinstance(node, Masters):
    return Masters(None, jax.tree.map(without_moments, node.inner, is_leaf=is_average))
  return node if isinstance(node, Average) else None
