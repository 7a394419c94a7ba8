"""One thing to time, and how to make it from a JAX function."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Missing(Exception):
  """A peer that is not installed here, or cannot run here; the message says why."""


class Timed(NamedTuple):
  call: Callable[[], Any]  # does the work once and waits for it
  temp_mib: float | None = None  # compiled temporary memory, where known
  per_call: int = 0  # units of work in a call; 0: no rate is printed
  unit: str = ""


class Case(NamedTuple):
  group: str  # cases of a group do the same work
  name: str  # the case whose name starts with "ours" is what the others are compared with
  make: Callable[[], Timed]  # compiles; may raise Missing


def compiled(fn: Callable, *args, per_call: int = 0, unit: str = "") -> Timed:
  """`fn(*args)` ahead-of-time compiled, so that compilation is never timed."""
  program = jax.jit(fn).lower(*args).compile()
  memory = program.memory_analysis()
  temp = None if memory is None else memory.temp_size_in_bytes / 2**20
  return Timed(lambda: jax.block_until_ready(program(*args)), temp, per_call, unit)


def gradients(fn: Callable, *args) -> Timed:
  """fn's first output and, for a random cotangent of it, those of every argument."""
  first = lambda *args: jax.tree.leaves(fn(*args))[0]
  shape = jax.eval_shape(first, *args)
  weights = jax.random.normal(jax.random.key(7), shape.shape, shape.dtype)

  def run(weights, *args):
    y, pull = jax.vjp(first, *args)
    return y, pull(weights)

  return compiled(run, weights, *args)


def pair(group: str, name: str, fn: Callable, args: tuple) -> list[Case]:
  """The forward case and the forward+backward case of one function."""
  return [
    Case(f"{group}, forward", name, lambda: compiled(fn, *args)),
    Case(f"{group}, forward+backward", name, lambda: gradients(fn, *args)),
  ]
