"""Counts a model's cost from shapes alone: nothing is allocated or compiled, so it works for models of any size."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.extend.core import Literal
from rich.table import Table

from hybrids.objective import measure
from mistake import Mistake
from training import flops
from training.state import example, tokens, variables_shape

# tokens of the sequences whose states are counted
CONTEXTS = (4_096, 32_768, 262_144)


def count(
  model: nn.Module,
  task: Any,
  *,
  tx: optax.GradientTransformation | None = None,
  contexts: Sequence[int] = CONTEXTS,
) -> dict[str, Any]:
  """Returns numbers by name, for JSON. Bytes are those of one device that holds everything.

    parameters, parameters/NAME     numbers; NAME is a part of the model
    parameters/active               those that one token passes, where that is not all: a few of many experts
    state/kind                      'fixed', 'window', 'grows', 'whole input' or 'none'
    state/bytes@N                   of one sequence, with room for N tokens: the task's length and `contexts`
    flops/forward, /training        per token, all tokens at once; training is forward and both gradients
    flops/step                      per token, one at a time, with a state of the task's length
    batch/rows, batch/tokens        what the memory of training is counted for: rows, and the tokens of each
    memory/parameters, /gradients, /optimizer, /activations, /batch, /training
                                    bytes; activations are what one batch keeps for the backward pass, /training all

  Args:
    tx: the optimizer, whose state is counted too if given.
    contexts: lengths at which a state that grows is counted, as far as the model can read them.
  Raises:
    ValueError: what the model's parts say about their settings.
  """
  boxed = variables_shape(model, task)
  variables = nn.meta.unbox(boxed)
  params = variables["params"]
  numbers: dict[str, Any] = {"parameters": size(params)}
  if (used := active(boxed["params"])) < numbers["parameters"]:
    numbers["parameters/active"] = used
  numbers |= {f"parameters/{name}": size(part) for name, part in params.items()}
  numbers |= _states(model, task, contexts)
  forward = flops.per_token(model, variables, example(task, 1))
  numbers |= {"flops/forward": forward, "flops/training": 3 * forward}
  if model.STATE != "none" and task.head == "lm":
    numbers["flops/step"] = _step(model, task, variables)
  batch = model.example(task.batch, task.length)
  memory = {
    "parameters": size_bytes(params),
    "gradients": size_bytes(params),
    "optimizer": size_bytes(jax.eval_shape(tx.init, params)) if tx else 0,
    "activations": kept(model, variables, batch),
    "batch": size_bytes(batch),
  }
  memory["training"] = sum(memory.values())
  numbers |= {"batch/rows": task.batch, "batch/tokens": tokens(example(task, 1))}
  return numbers | {f"memory/{name}": value for name, value in memory.items()}


def size(tree: Any) -> int:
  """Counts the numbers in the arrays of a tree."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def active(boxed: Any) -> int:
  """Counts the parameters in a tree of boxes that one token passes, see `layers.param.Parameter.used`."""
  leaves = jax.tree.leaves(boxed, is_leaf=lambda leaf: isinstance(leaf, nn.meta.AxisMetadata))
  return round(sum(getattr(leaf, "used", 1.0) * math.prod(nn.meta.unbox(leaf).shape) for leaf in leaves))


def size_bytes(tree: Any) -> int:
  """Returns the bytes of the arrays of a tree."""
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def state_bytes(model: nn.Module, length: int) -> int:
  """Returns the bytes of the state of one sequence with room for `length` tokens."""
  return size_bytes(jax.eval_shape(partial(model.init_state, 1, length)))


def kept(model: nn.Module, variables: Mapping[str, Any], batch: Mapping[str, jax.ShapeDtypeStruct]) -> int:
  """Returns the bytes that the forward pass of a loss keeps for the backward pass, parameters and batch excepted."""

  def residuals(variables, batch):
    return jax.tree.leaves(jax.vjp(lambda variables: measure(model, variables, batch)[0], variables)[1])

  jaxpr = jax.make_jaxpr(residuals)(variables, batch).jaxpr
  inputs = {*jaxpr.invars, *jaxpr.constvars}
  made = {var for var in jaxpr.outvars if not isinstance(var, Literal) and var not in inputs}
  return size_bytes([var.aval for var in made])


def _states(model: nn.Module, task: Any, contexts: Sequence[int]) -> dict[str, Any]:
  numbers: dict[str, Any] = {"state/kind": model.STATE}
  if model.STATE == "none":
    return numbers
  longest = getattr(model, "max_len", None) or getattr(model, "positions", None) or math.inf
  lengths = {task.length, *contexts} if model.STATE != "fixed" else {task.length}
  for length in sorted({int(min(length, longest)) for length in lengths}):
    try:
      numbers[f"state/bytes@{length}"] = state_bytes(model, length)
    except Mistake:
      # a mixer cannot read that many tokens
      break
  return numbers


def _step(model: nn.Module, task: Any, variables: Mapping[str, Any]) -> float:
  state = jax.eval_shape(partial(model.init_state, 1, task.length))
  step = lambda variables, token, state: model.apply(variables, token, state, method="step")
  return flops.count(step, variables, jax.ShapeDtypeStruct((1,), jnp.int32), state)


def table(counts: Mapping[str, Any]) -> Table:
  """Returns the numbers for a terminal."""
  made = Table(show_header=False)
  made.add_column()
  made.add_column(justify="right")
  section = None
  for name, value in counts.items():
    head, _, rest = name.partition("/")
    if section not in (None, head):
      made.add_section()
    section = head
    made.add_row(_label(head, rest), _show(name, value))
  return made


def _label(head: str, rest: str) -> str:
  if rest.startswith("bytes@"):
    return f"state of a sequence of {int(rest.removeprefix('bytes@')):,} tokens"
  if head == "parameters" and rest == "active":
    return "  of which a token passes"
  if head == "parameters" and rest:
    return f"  {rest}"
  lines = {"flops": f"FLOPs per token, {rest}", "memory": f"memory, {rest}"}
  return (lines | {"batch": "rows of a batch" if rest == "rows" else "tokens of a row"}).get(
    head, f"{head} {rest}".strip()
  )


def _show(name: str, value: Any) -> str:
  if isinstance(value, str):
    return value
  if name.startswith(("parameters", "batch")):
    return f"{value:,}"
  units = ("", "k", "M", "G", "T", "P") if name.startswith("flops") else ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
  base = 1000 if name.startswith("flops") else 1024
  power = min(int(math.log(value, base)), len(units) - 1) if value >= 1 else 0
  return f"{value / base**power:,.{1 if power else 0}f} {units[power]}".rstrip()
