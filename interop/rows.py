"""Rows of a mapping table: which tensors of theirs are which parameters of ours, and how one becomes the other.

A row has names on both sides and steps between them, each of which knows its inverse. A name of theirs with "{i}" is
there once for each of their layers; the row's path then begins with the letters that it holds for:

  row("model.layers.{i}.self_attn.q_proj.weight", "a/mixer/q_proj/kernel", turn)
  row("model.layers.{i}.input_layernorm.weight", "am/norm/scale")            in layers of letter a or m
  row("model.embed_tokens.weight", "embed/embedding")
  row(each("layers.{i}.experts.{e}.w1.weight", e=8), "e/mixer/gate_proj", turn, stack)
  row("layers.{i}.attn.slope", "buffers:l/mixer/rate", reshaped(4, 1, 1))     another collection than "params"

Steps take a list of NumPy arrays, a row's tensors in order, and return such a list.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mistake import Mistake

Arrays = list[np.ndarray]


class Step(NamedTuple):
  """Their arrays -> ours, and back.

  Attributes:
    moves: says that it computes nothing, so that numbers may stay as stored.
    sizes: of arrays that ours has one below the other, if that is all it does: then a part can be read by itself.
  """

  there: Callable[[Arrays], Arrays]
  back: Callable[[Arrays], Arrays]
  moves: bool = False
  sizes: tuple[int, ...] = ()


class Row(NamedTuple):
  """Names of theirs, paths of ours, and the steps from the former to the latter."""

  theirs: tuple[str, ...]
  ours: tuple[str, ...]
  steps: tuple[Step, ...]

  @property
  def by_layer(self) -> bool:
    """Returns whether it stands for one row a layer."""
    return any("{i}" in name for name in self.theirs)

  @property
  def letters(self) -> str:
    """Returns the letters that it holds for."""
    return self.ours[0].rpartition(":")[2].partition("/")[0]

  @property
  def moves(self) -> bool:
    """Returns whether its numbers are theirs, in other places."""
    return all(step.moves for step in self.steps)

  @property
  def sizes(self) -> tuple[int, ...]:
    """Returns the rows of each of their tensors, if ours has them one below the other; else nothing."""
    return self.steps[0].sizes if len(self.steps) == 1 else ()

  def here(self, arrays: Arrays) -> Arrays:
    """Ours of theirs."""
    return functools.reduce(lambda arrays, step: step.there(arrays), self.steps, arrays)

  def away(self, arrays: Arrays) -> Arrays:
    """Theirs of ours."""
    return functools.reduce(lambda arrays, step: step.back(arrays), reversed(self.steps), arrays)


def row(theirs: str | Sequence[str], ours: str | Sequence[str], *steps: Step) -> Row:
  """Returns a row of one or several names on each side."""
  names = lambda value: (value,) if isinstance(value, str) else tuple(value)
  return Row(names(theirs), names(ours), steps)


def each(pattern: str, **ranges: int) -> tuple[str, ...]:
  """Returns the names of a pattern with every number up to those given: each("w.{e}", e=2) is ("w.0", "w.1")."""
  numbers = itertools.product(*map(range, ranges.values()))
  found = []
  for values in numbers:
    name = pattern
    for key, value in zip(ranges, values):
      name = name.replace("{" + key + "}", str(value))
    found.append(name)
  return tuple(found)


def elementwise(
  there: Callable[[np.ndarray], np.ndarray], back: Callable[[np.ndarray], np.ndarray], moves: bool = False
) -> Step:
  """Returns a step that treats every array alike."""
  return Step(lambda arrays: [there(x) for x in arrays], lambda arrays: [back(x) for x in arrays], moves)


# a matrix of PyTorch's Linear, (out, in), is ours (in, out); of stacked ones, each
turn = elementwise(lambda x: x.swapaxes(-1, -2), lambda x: x.swapaxes(-1, -2), moves=True)
# the kernel of a depthwise convolution, (channels, 1, taps), is ours (taps, channels)
depthwise = elementwise(lambda x: x[:, 0].T, lambda x: x.T[:, None], moves=True)
# scales that are stored as their distance from 1, and mixtures that weigh the other token
plus_one = elementwise(lambda x: x + 1, lambda x: x - 1)
one_minus = elementwise(lambda x: 1 - x, lambda x: 1 - x)
# several arrays become one with a new axis in front
stack = Step(lambda arrays: [np.stack(arrays)], lambda arrays: list(arrays[0]), moves=True)


def constant(ours: str, value: np.ndarray) -> Row:
  """Returns a parameter that their model lacks: it has this value, or the model cannot be saved as theirs."""

  def away(arrays: Arrays) -> Arrays:
    if not np.array_equal(arrays[0], value):
      raise Mistake(f"{ours} has no place in this family's files, which is right only as long as it is {value.flat[0]}")
    return []

  return Row((), (ours,), (Step(lambda arrays: [value], away),))


def dense(theirs: str, ours: str, *steps: Step, bias: bool = False) -> list[Row]:
  """Returns the rows of a Linear: its weight, and its bias if it has one; the steps hold for the outputs of both."""
  weight = row(f"{theirs}.weight", f"{ours}/kernel", *steps, turn)
  return [weight, *([row(f"{theirs}.bias", f"{ours}/bias", *steps)] if bias else [])]


def depthwise_conv(theirs: str, ours: str, *, bias: bool = False) -> list[Row]:
  """Returns the rows of a depthwise convolution."""
  kernel = row(f"{theirs}.weight", f"{ours}/kernel", depthwise)
  return [kernel, *([row(f"{theirs}.bias", f"{ours}/bias")] if bias else [])]


def layer_norm(theirs: str, ours: str) -> list[Row]:
  """Returns the rows of a LayerNorm."""
  return [row(f"{theirs}.weight", f"{ours}/scale"), row(f"{theirs}.bias", f"{ours}/bias")]


def reshaped(*theirs: int, ours: tuple[int, ...] = (-1,)) -> Step:
  """Returns a step between their shape and ours, of the same numbers in the same order."""
  return elementwise(lambda x: x.reshape(ours), lambda x: x.reshape(theirs), moves=True)


def times(factor: float | np.ndarray) -> Step:
  """Ours has the factor in it, or a factor for each row of theirs."""
  by_row = lambda x: np.float32(factor).reshape(-1, *(1,) * (x.ndim - 1)) if np.ndim(factor) else np.float32(factor)
  return elementwise(lambda x: x * by_row(x), lambda x: x / by_row(x))


def split(*sizes: int, axis: int = 0) -> Step:
  """Cuts one array into neighbouring parts of these sizes."""
  ends = list(itertools.accumulate(sizes))

  def there(arrays: Arrays) -> Arrays:
    check(arrays[0].shape[axis] == ends[-1], f"its axis {axis} must be {' + '.join(map(str, sizes))}")
    return np.split(arrays[0], ends[:-1], axis=axis)

  return Step(there, lambda arrays: [np.concatenate(arrays, axis=axis)], moves=True)


def join(*sizes: int, axis: int = 0) -> Step:
  """Returns the inverse of `split`."""
  step = split(*sizes, axis=axis)
  return Step(step.back, step.there, moves=True, sizes=() if axis else sizes)


def unpack(heads: int, *sizes: int) -> Step:
  """Cuts rows that hold, for each head in turn, parts of these sizes, into one array for each part."""
  total = sum(sizes)

  def there(arrays: Arrays) -> Arrays:
    x = arrays[0]
    check(x.shape[0] == heads * total, f"its axis 0 must be {heads} times {' + '.join(map(str, sizes))}")
    parts = np.split(x.reshape(heads, total, *x.shape[1:]), list(itertools.accumulate(sizes))[:-1], axis=1)
    return [part.reshape(-1, *x.shape[1:]) for part in parts]

  def back(arrays: Arrays) -> Arrays:
    parts = [x.reshape(heads, size, *x.shape[1:]) for x, size in zip(arrays, sizes)]
    return [np.concatenate(parts, axis=1).reshape(-1, *arrays[0].shape[1:])]

  return Step(there, back, moves=True)


def permuted(order: Any) -> Step:
  """Ours has theirs' rows in this order."""
  order = np.asarray(order)
  return elementwise(lambda x: x[order], lambda x: x[np.argsort(order)], moves=True)


class Misfit(Exception):
  """A step does not fit the shape of an array."""


def check(fine: bool, need: str) -> None:
  """Raises a Misfit that says what is needed."""
  if not fine:
    raise Misfit(need)
