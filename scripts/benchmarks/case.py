"""One thing to time, and how to make it from a JAX function."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from scripts.benchmarks.floors import Work


class Missing(Exception):
  """A peer that is not installed here, or cannot run here; the message says why."""


class Timed(NamedTuple):
  call: Callable[[], Any]  # does the work once and waits for it
  temp_mib: float | None = None  # compiled temporary memory, where known
  per_call: int = 0  # units of work in a call; 0: no rate is printed
  unit: str = ""
  many: Callable[[int], Any] | None = None  # does the work so often and waits for the last, where that can be


class Kernel(NamedTuple):
  """The facts about a case that measures one kernel: its panel, length, dtype and work."""

  panel: str  # of the plot: groups that differ in length alone
  length: int
  dtype: str
  works: tuple[Work, ...]  # its passes, of which a floor is made


class Case(NamedTuple):
  group: str  # cases of a group do the same work
  name: str  # the case whose name starts with "ours" is what the others are compared with
  make: Callable[[], Timed]  # compiles; may raise Missing
  kernel: Kernel | None = None


def compiled(fn: Callable, *args, per_call: int = 0, unit: str = "") -> Timed:
  """`fn(*args)` ahead-of-time compiled, so that compilation is never timed."""
  return _timed(jax.jit(fn).lower(*args).compile(), args, per_call, unit)


def fitted(fn: Callable, shapes: tuple, draw: Callable[[], tuple]) -> Timed:
  """`fn(*draw())` compiled; nothing is drawn where it does not fit the device's memory.

  Raises:
    Missing: it does not.
  """
  program = jax.jit(fn).lower(*shapes).compile()
  memory, there = program.memory_analysis(), free_bytes()
  if memory is not None and there is not None:
    need = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    if need > there:
      raise Missing(f"does not fit: it needs {need / 2**30:.1f} GiB of {there / 2**30:.1f}")
  return _timed(program, draw())


def _timed(program: Any, args: tuple, per_call: int = 0, unit: str = "") -> Timed:
  memory = program.memory_analysis()
  temp = None if memory is None else memory.temp_size_in_bytes / 2**20

  def many(calls):
    for _ in range(calls):
      out = program(*args)
    return jax.block_until_ready(out)

  return Timed(lambda: many(1), temp, per_call, unit, many)


def free_bytes() -> int | None:
  """Returns the free memory of the first device; None where it is unknown."""
  device = jax.local_devices()[0]
  if stats := device.memory_stats():
    return stats["bytes_limit"] - stats["bytes_in_use"]
  meminfo = Path("/proc/meminfo")
  if device.platform != "cpu" or not meminfo.exists():
    return None
  return next(int(line.split()[1]) * 2**10 for line in meminfo.read_text().splitlines() if line.startswith("MemAvail"))


def gradients(fn: Callable, *args) -> Timed:
  """fn's first output and, for a random cotangent of it, those of every argument."""
  return compiled(pulled(fn), *with_cotangent(fn, *args))


def pulled(fn: Callable) -> Callable:
  """Returns the function that `gradients` times; it takes the result of `with_cotangent`."""

  def run(weights, *args):
    y, pull = jax.vjp(lambda *args: _first(fn(*args)), *args)
    return y, pull(weights)

  return run


def with_cotangent(fn: Callable, *args) -> tuple:
  shape = jax.eval_shape(lambda *args: _first(fn(*args)), *args)
  return jax.random.normal(jax.random.key(7), shape.shape, shape.dtype), *args


def _first(out: Any) -> jax.Array:
  return jax.tree.leaves(out)[0]


def pair(group: str, name: str, fn: Callable, args: tuple) -> list[Case]:
  """Returns the forward case and the forward+backward case of one function."""
  return [
    Case(f"{group}, forward", name, lambda: compiled(fn, *args)),
    Case(f"{group}, forward+backward", name, lambda: gradients(fn, *args)),
  ]
