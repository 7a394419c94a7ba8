"""Exact averages over whole evaluation sets, by calls of the whole length or by chunks that carry the state."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mistake import Mistake
from training import losses, sharding

Batch = Mapping[str, np.ndarray]
# a loss or a metric -> its weighted sum, a float or an array, and the sum of its weights
Totals = dict[str, tuple[Any, Any]]
NOTHING = "evaluation set {!r} has nothing to score: it is empty, or all weights are 0; see data"


def make_evaluate(
  model: nn.Module, task: Any, mesh: Mesh, *, chunk: int = 0, batches: int = 0
) -> Callable[[Any], dict[str, float]]:
  """variables -> {"eval/<set>/<metric>": average over the set}; every target counts by its weight, in any batch.

  Args:
    chunk: tokens a call; the state is carried from call to call, so memory does not grow with the length. 0: one call.
    batches: batches of each set, 0 for all.
  Raises:
    Mistake: `chunk` and the model's state do not go together, or the first documents of a set are longer than the
      table of learned positions; later, nothing in a set can be scored, or other documents are.
  """
  if chunk < 0 or batches < 0:
    raise Mistake(f"eval.chunk={chunk}, eval.batches={batches}; both must be 0 (all) or more")
  if chunk and model.STATE == "none":
    raise Mistake(f"eval.chunk={chunk} carries a state, but this model's STATE is 'none'; set eval.chunk=0")
  if _positions(model) is not None:
    for rows in task.eval_sets(jax.process_index(), jax.process_count()).values():
      for batch in islice(rows(), 1):
        _check_room(model, batch, _time_axis(batch, task))
  whole, resumed, start = _compiled(model, mesh)

  def sums(variables: Any, rows: Iterator[Batch]) -> Totals:
    total: Totals = {}
    parts: list[losses.Sums] = []
    for batch in rows:
      # a batch late, so that the next one is made while the device works
      total = _add(total, parts)
      axis = _time_axis(batch, task)
      _check_room(model, batch, axis)
      if chunk:
        length = batch["inputs"].shape[axis]
        carry = start(len(batch["targets"]) * jax.process_count(), length)
        chunks = [_cut(batch, first, first + chunk, axis) for first in range(0, length, chunk)]
        parts = _by_chunks(functools.partial(resumed, variables), chunks, carry, mesh)
      else:
        parts = [whole(variables, sharding.put(batch, mesh))]
    return _add(total, parts)

  def evaluate(variables: Any) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, rows in task.eval_sets(jax.process_index(), jax.process_count()).items():
      found = sums(variables, _divisible(islice(rows(), batches or None), mesh))
      if not found or not float(found["loss"][1]):
        raise Mistake(NOTHING.format(name))
      means = losses.averages(found, task.metrics, losses.bytes_per_target(task, name))
      values |= {f"eval/{name}/{key}": value for key, value in means.items()}
    return values

  return evaluate


def preview(task: Any, batches: int = 0) -> str:
  """Returns what an evaluation reads, 'validation: 12 batches of 8 x 8,192 tokens'; shapes are those of first batches.

  Args:
    batches: batches of each set, 0 for all.
  Raises:
    Mistake: a set has no target with a weight.
  """
  texts = []
  for name, rows in task.eval_sets(jax.process_index(), jax.process_count()).items():
    first: tuple[int, ...] = ()
    for batch in islice(rows(), batches or None):
      first = first or batch["inputs"].shape
      if batch["weights"].any():
        break
    else:
      raise Mistake(NOTHING.format(name))
    count, *shape = first[:-1] if task.features else first
    # a task of one's own need not know how many there are
    known = min(len(rows), batches or len(rows)) if hasattr(rows, "__len__") else batches
    many = "1 batch" if known == 1 else f"{known:,} batches" if known else "batches"
    sizes = " x ".join(f"{n:,}" for n in (count * jax.process_count(), *shape))
    texts.append(f"{name}: {many} of {sizes} tokens")
  return "; ".join(texts)


def _time_axis(batch: Batch, task: Any) -> int:
  # of documents that are answered together, time is the axis after that over them
  return batch["inputs"].ndim - (2 if task.features else 1)


def _check_room(model: nn.Module, batch: Batch, axis: int) -> None:
  """Refuses documents beyond the table of learned positions, whose rows would be NaN, and with them the averages."""
  limit = _positions(model)
  if limit is None:
    return
  place = np.arange(batch["inputs"].shape[axis])
  offset = place - np.maximum.accumulate(np.where(batch.get("reset", False), place, 0), axis=-1)
  lengths = np.asarray(batch.get("lengths", len(place)))[..., None]
  longest = 1 + int(np.where(place < lengths, offset, 0).max(initial=0))
  if longest > limit:
    raise Mistake(
      f"evaluation has documents of {longest} tokens, but the model has {limit} learned positions; set "
      f"model.max_len={longest} or more, or use shorter rows"
    )


def _positions(model: nn.Module) -> int | None:
  return getattr(model, "positions", None)


def _add(total: Totals, parts: list[losses.Sums]) -> Totals:
  """Adds up sums on the host in float64, whatever the devices' precision."""
  for part in parts:
    floats = jax.tree.map(lambda x: np.asarray(x, np.float64)[()], part)
    total = losses.add(total, floats) if total else floats
  return total


def _compiled(model: nn.Module, mesh: Mesh) -> tuple[Callable, Callable, Callable]:
  # said, not left to the compiler, so that the first chunk's program fits the others
  summed, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(sharding.ROWS))
  whole = jax.jit(lambda variables, batch: model.apply(variables, batch, method="loss"))
  resumed = lambda variables, batch, carry: model.apply(variables, batch, carry, method="resume_loss")
  start = jax.jit(model.init_state, static_argnums=(0, 1), out_shardings=rows)
  return whole, jax.jit(resumed, out_shardings=(summed, rows)), start


def _by_chunks(resumed: Callable, chunks: Sequence[Batch], carry: Any, mesh: Mesh) -> list[losses.Sums]:
  """Returns the sums of every chunk; only those of the last chunk where a row has one answer, given there."""
  parts = []
  for chunk in chunks:
    part, carry = resumed(sharding.put(chunk, mesh), carry)
    parts.append(part)
  return parts if chunks[0]["weights"].ndim > 1 else parts[-1:]


def _cut(batch: Batch, first: int, end: int, axis: int) -> dict[str, np.ndarray]:
  """Returns some tokens of a batch; what there is one of for a row, such as the numbers of an answer, stays whole."""
  tokens = ("inputs", "reset", "dt", *(("targets", "weights") if batch["weights"].ndim > 1 else ()))
  part = {key: value[(slice(None),) * axis + (slice(first, end),)] for key, value in batch.items() if key in tokens}
  if "lengths" in batch:
    part["lengths"] = np.clip(batch["lengths"] - first, 0, part["inputs"].shape[axis]).astype(np.int32)
  return {**batch, **part}


def _divisible(rows: Iterator[Batch], mesh: Mesh) -> Iterator[Batch]:
  """Yields the batches, filled up with rows of weight 0 where they do not divide over the devices."""
  step = max(sharding.shards(mesh) // jax.process_count(), 1)
  for batch in rows:
    count = len(batch["targets"])
    missing = -count % step
    full = {key: np.concatenate([value, np.repeat(value[-1:], missing, axis=0)]) for key, value in batch.items()}
    full["weights"][count:] = 0
    yield full
