"""The parts of scripts/device_day.py: what each one runs, and the rows that it gives.

A toy runs all of it on a CPU at small sizes. No kernel for GPUs runs there, so XLA's form stands in its place, and the
rows say so.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hybrids.model import Model
from hybrids.recipes import get_recipe
from kernels import dispatch
from kernels.conv_step import conv_step
from kernels.selective_step import selective_step
from kernels.ssd_step import ssd_step
from scripts import bench
from scripts.benchmarks import decode, floors, kernels, models, ops, small, steps
from scripts.benchmarks.case import Case, Missing
from scripts.peers.gpu_ops import DISTRIBUTIONS

Row = dict[str, Any]
KERNEL = "pallas_gpu"
# a root mean square of differences over that of the truth: a few roundings of the inputs' type, which add up in squares
LIMITS = {"float32": 2.0**-13, "bfloat16": 2.0**-7}
ROUNDS = 7
DTYPES = ("float32", "bfloat16")
# by the size in `ops.SIZES`: rows and tokens, which tiles do not divide
LENGTHS = {"real": (2, 2000), "toy": (2, 37)}
TOY_DEVICE = {"mib": 4, "side": 64}  # of what measures the device
TOY_SIZES = dict(n=6, e=6, g=1, h=2, k=4, p=3)
MODELS = {"mamba": ("mamba_130m", "mamba_toy"), "mamba2": ("mamba2_130m", "mamba2_toy")}


def kernel_here(toy: bool) -> str:
  """Returns the name of the implementation that is tried."""
  return "xla" if toy else KERNEL


def generator(dtype: str) -> Callable[..., jax.Array]:
  """Returns a function that draws normal numbers of a shape, others at each call."""
  keys = (jax.random.key(i) for i in itertools.count())
  return lambda *shape, dtype=dtype: jax.random.normal(next(keys), shape, dtype)


def error(got: jax.Array, want: jax.Array) -> float:
  """Returns the root mean square of the differences over that of the truth; not a number where one of them is not."""
  wide = np.complex128 if np.iscomplexobj(want) else np.float64
  truth = np.asarray(want, wide)
  off = np.abs(np.asarray(got, wide) - truth)
  return float(np.sqrt(np.mean(off**2)) / max(np.sqrt(np.mean(np.abs(truth) ** 2)), 1e-30))


def calls(chosen: dispatch.Watched, impl: str) -> list[list[str]]:
  """Returns the ops that an implementation ran, each with the types of numbers that it was handed: ["ssd", "bfloat16"].

  They are not always those of the inputs: an op may widen these first.
  """
  return sorted([op, numbers] for (op, name), types in chosen.types.items() if name == impl for numbers in types)


def compared(run: Callable[[str], Any], truth: Any, dtype: str, impls: tuple[str, ...]) -> Iterator[Row]:
  """Makes a row for each implementation: the largest error of its results, and whether all are within the limit."""
  for impl in impls:
    try:
      with dispatch.watch() as chosen:
        results = run(impl)
      found = [error(g, w) for g, w in zip(jax.tree.leaves(results), jax.tree.leaves(truth), strict=True)]
    except ValueError as refusal:
      if "cannot run on" not in str(refusal):
        raise
      yield {"impl": impl, "dtype": dtype, "missing": " ".join(str(refusal).split())}
      continue
    worst = float(np.max(found))
    yield {
      "impl": impl,
      "dtype": dtype,
      "calls": calls(chosen, impl),
      "errors": [float(f"{e:.3g}") for e in found],
      "worst": worst,
      "limit": LIMITS[dtype],
      "ok": bool(worst <= LIMITS[dtype]),
    }


def check(size: str, toy: bool) -> Iterator[Row]:
  """Compares values, last states and gradients of an op at a published size with the definition in float32."""
  name, sizes = ops.SIZES[size]
  b, t = LENGTHS["toy" if toy else "real"]
  sizes = {"b": b, "t": t, **({axis: TOY_SIZES[axis] for axis in sizes} if toy else sizes)}
  for dtype in DTYPES if "complex" not in ops.OPS[name].state else DTYPES[:1]:
    for row in check_in(dtype, name, sizes, tuple(dict.fromkeys((kernel_here(toy), "xla")))):
      yield {"op": name, "size": size, **row}


def check_in(dtype: str, name: str, sizes: dict[str, int], impls: tuple[str, ...]) -> Iterator[Row]:
  """Compares one op in one type; the definition reads the same numbers in float32."""
  op, (b, t) = ops.OPS[name], (sizes["b"], sizes["t"])
  reset = jnp.zeros((b, t), bool).at[:, t // 3].set(True)

  def results(impl: str, arrays: tuple, bars: Any) -> Any:
    out, pull = jax.vjp(lambda *z: op.run(*z, reset=reset, impl=impl), *arrays)
    return out, pull(jax.tree.map(lambda bar, y: bar.astype(y.dtype), bars, out))

  arrays = kernels.arrays_over_time(name, generator(dtype), **sizes)
  wide = jax.tree.map(lambda z: z.astype(jnp.promote_types(z.dtype, jnp.float32)), arrays)
  shapes = jax.eval_shape(lambda *z: op.run(*z, reset=reset, impl="reference"), *wide)
  draw = generator("float32")
  bars = jax.tree.map(lambda y: draw(*y.shape, dtype=y.dtype), shapes)
  program = jax.jit(results, static_argnums=0)
  with jax.default_matmul_precision("highest"):
    truth = jax.device_get(program("reference", wide, bars))
  return compared(lambda impl: program(impl, arrays, bars), truth, dtype, impls)


def check_steps(toy: bool) -> Iterator[Row]:
  """Compares the ops for one token of Mamba 2.8B and Mamba-2 2.7B with their definitions."""
  e, h = (6, 2) if toy else (5120, 80)
  b, p, k = (2, 3, 4) if toy else (64, 64, 128)
  token, layer = steps.ssd_arrays(b, h, p, 1, k, "gate_first", 1)
  words = {key: layer.pop(key) for key in ("norm", "norm_groups")}
  for name, op, arrays, fields in (
    ("conv_step", conv_step, steps.conv_arrays(b, e, 4)[:3], {}),
    ("selective_step", selective_step, steps.selective_arrays(b, e, 1, 16), {}),
    ("ssd_step", functools.partial(ssd_step, **words), token, layer),
  ):
    for dtype in DTYPES:
      for row in check_step(op, in_type(dtype, name, arrays), fields, dtype, "reference" if toy else KERNEL):
        yield {"op": name, "size": f"batch {b}", **row}


def in_type(dtype: str, name: str, arrays: tuple) -> tuple:
  """Returns the arrays of a token as a model of a type has them: steps and the last one, the state, stay float32."""
  stay = {"conv_step": (), "selective_step": (1, 2, 5, 7), "ssd_step": (2, 4)}[name]
  return tuple(z if place in stay else z.astype(dtype) for place, z in enumerate(arrays))


def check_step(op: Callable, arrays: tuple, fields: dict[str, Any], dtype: str, impl: str) -> Iterator[Row]:
  """Compares one op for one token; the definition reads the same numbers in float32."""
  # all are made here, as a toy's kernel is the definition itself, which JAX would not trace again
  program = lambda impl, arrays: jax.jit(lambda arrays: op(*arrays, **fields, impl=impl))(arrays)
  wide = jax.tree.map(lambda z: z.astype(jnp.float32), arrays)
  with jax.default_matmul_precision("highest"):
    truth = jax.device_get(program("reference", wide))
  return compared(lambda impl: program(impl, arrays), truth, dtype, (impl,))


def installed() -> tuple[str, ...]:
  """Returns the packages of others that are installed and may be timed; cuDNN comes with JAX."""
  found = {(each.name or "").lower().replace("_", "-") for each in metadata.distributions()}
  return tuple(name for name in DISTRIBUTIONS if name in found)


def time_op(name: str, toy: bool) -> Iterator[Row]:
  """Times forward and backward passes of an op in all forms but the definition, beside what others have installed."""
  op = kernels.OPS[name]
  sizes = {axis: min(size, 32) for axis, size in op.small[0].items()} if toy else op.large[0]
  groups: dict[str, list[Case]] = {}
  for dtype in DTYPES[:1] if toy else reversed(DTYPES):
    for case in kernels.one(name, sizes, dtype, installed()):
      if not case.name.endswith("reference"):
        groups.setdefault(case.group, []).append(case)
  rates = floors.measure(**TOY_DEVICE if toy else bench.LARGE)
  for group, cases in groups.items():
    with dispatch.watch() as chosen:
      measured = bench.measure(cases, 2 if toy else ROUNDS, rates)
    for row in measured:
      yield {"group": group, **row, "calls": calls(chosen, KERNEL) if row["name"].endswith(KERNEL) else []}


def timed_both(group: str, make: Callable[[], Any], toy: bool) -> Iterator[Row]:
  """Times a call without the kernels, then with them; a program that JAX has kept would not choose again."""
  for label, impl in (("kernels off", "auto"), ("kernels on", kernel_here(toy))):
    jax.clear_caches()
    with dispatch.use(impl), dispatch.watch() as chosen:
      (row,) = bench.measure([Case(group, label, make)], 2 if toy else ROUNDS)
    yield {"group": group, **row, "implementations": dispatch.describe(chosen), "calls": calls(chosen, KERNEL)}


def built(family: str, toy: bool, **fields: Any) -> tuple[str, Model]:
  """Returns the name of a published size and its model in bfloat16."""
  name = MODELS[family][toy]
  return name, small.build(get_recipe(name), dtype="bfloat16", **fields)


def train(family: str, toy: bool) -> Iterator[Row]:
  """Times training steps of the 130M model, loss, gradients and AdamW, in bfloat16."""
  name, model = built(family, toy)
  batch, length = (2, 16) if toy else (8, 2048)
  make = functools.partial(models.step_of, model, 1, batch, length)
  yield from timed_both(f"{name} training step, bfloat16, B{batch} L{length}", make, toy)


def generate(family: str, toy: bool) -> Iterator[Row]:
  """Times greedy decoding of the 130M model in bfloat16, one row and many."""
  name, model = built(family, toy)
  for batch in (1,) if toy else (1, 64):
    shape = dict(batch=batch, context=8 if toy else 128, tokens=4 if toy else 64)
    make = functools.partial(decode.decode_of, model, **shape)
    yield from timed_both(f"{name} decode, bfloat16, batch {batch}", make, toy)


def rows(function: Callable[..., Iterator[Row]], *args: Any) -> Iterator[Row]:
  """Runs a part; what cannot run at all is a row, too."""
  try:
    yield from function(*args)
  except Missing as reason:
    yield {"missing": str(reason)}
