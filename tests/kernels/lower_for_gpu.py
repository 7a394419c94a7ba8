"""Kernels lowered for GPUs at real sizes, alone and on eight devices: run by test_pallas_gpu.py in its own process.

  python -m tests.kernels.lower_for_gpu [every]

Without "every" the first case of each op, and the steps on eight devices: lowering takes seconds a kernel.
"""

import contextlib
import functools
import re
import sys

import jax
import jax.numpy as jnp

from kernels import gpu
from kernels.linear_scan import linear_scan
from kernels.rg_lru import rg_lru
from kernels.selective_scan import selective_scan
from kernels.ssd import ssd
from tests.kernels.lower_for_tpu import MESH, gradients, shapes, steps


def selective(b, t, e, g, n, dtype=jnp.float32):
  scan = (b, t, e), (b, t, e), (e, n), (b, t, g, n), (b, t, g, n), (b, e, n)
  return shapes(*scan, (e,), (b, t, e), dtype=dtype)


def cases(b=8, t=2000):
  """Names, ops, their arguments, and kernels in forward and backward: real sizes, lengths that tiles do not divide."""
  wide, narrow, long = (b, t, 2560), (b, t, 384), (8, 65537, 256)
  fused = functools.partial(selective_scan, softplus=True)
  return {
    "linear_scan of RG-LRU": (linear_scan, shapes(wide, wide, (b, 2560)), 2),
    "linear_scan of S5, cut in time": (linear_scan, shapes((384,), narrow, (b, 384), dtype=jnp.complex64), 4),
    "linear_scan of bytes, cut in time": (linear_scan, shapes(long, long, (8, 256), dtype=jnp.bfloat16), 4),
    "rg_lru": (rg_lru, shapes(wide, wide, wide, (2560,), (b, 2560)), 2),
    "rg_lru of bfloat16": (rg_lru, shapes(wide, wide, wide, (2560,), (b, 2560), dtype=jnp.bfloat16), 2),
    "selective_scan of Mamba": (fused, selective(b, t, 2048, 1, 16), 2),
    "selective_scan of bfloat16": (fused, selective(b, t, 2048, 1, 16, dtype=jnp.bfloat16), 2),
    # backward a block has a quarter of the state, so there are enough of them
    "selective_scan of groups, forward cut in time": (fused, selective(b, t, 1024, 2, 64), 3),
  }


def products(b=8, t=2000):
  """The same of what tensor cores multiply."""

  def heads(h, p, g, k):
    narrow = shapes((b, t, g, k), (b, t, g, k), (b, t, h, p), dtype=jnp.bfloat16)
    return ssd, (*narrow, *shapes((b, t, h), (b, h, k, p))), 2

  return {
    "ssd of Mamba-2": heads(24, 64, 1, 128),
    "ssd of groups, wide heads and the largest state": heads(8, 128, 2, 128),
  }


def first_of_each(found):
  """The cases whose op is none of those before, by the first word of their names."""
  ops = [name.split()[0] for name in found]
  return {name: case for i, (name, case) in enumerate(found.items()) if ops[i] not in ops[:i]}


def kernels_in(op, arrays, reset) -> int:
  """How many kernels there are in forward and backward, lowered."""
  op = functools.partial(op, impl="pallas_gpu")
  bars = jax.eval_shape(lambda arrays, reset: op(*arrays, reset=reset), arrays, reset)
  lowered = jax.jit(gradients, static_argnums=0).trace(op, arrays, reset, bars).lower(lowering_platforms=("cuda",))
  text = lowered.as_text()
  assert "all_gather" not in text, "a device gathers what others have"
  return len(re.findall(r"custom_call @mosaic_gpu", text))


def in_place(op, arrays, layer) -> tuple[int, int]:
  """How many kernels there are, lowered, and how many of their arguments they update in place."""
  op = functools.partial(op, impl="pallas_gpu")
  text = jax.jit(lambda z, layer: op(*z, **layer)).trace(arrays, layer).lower(lowering_platforms=("cuda",)).as_text()
  return len(re.findall(r"custom_call @mosaic_gpu", text)), text.count("output_operand_alias<")


if __name__ == "__main__":
  jax.default_backend = lambda: "gpu"
  gpu.compute_capability = lambda: 9.0
  mesh = jax.make_mesh(tuple(MESH.values()), tuple(MESH), axis_types=(jax.sharding.AxisType.Auto,) * len(MESH))
  every, found = sys.argv[1:] == ["every"], {**cases(), **products()}
  for name, (op, arrays, count) in (found if every else first_of_each(found)).items():
    reset = jax.ShapeDtypeStruct(arrays[1].shape[:2], jnp.bool)
    got = kernels_in(op, arrays, reset)
    assert got == count, f"{name} alone: {got} kernels"
    with jax.set_mesh(mesh):
      # A device has an eighth of the rows and channels, so time is cut more often.
      got = kernels_in(op, arrays, None)
    assert got == 4, f"{name} on a mesh: {got} kernels"
  for b in (1, 64) if every else (64,):
    for name, (op, arrays, layer, _) in steps(b).items():
      with jax.set_mesh(mesh) if b > 1 else contextlib.nullcontext():
        got = in_place(op, arrays, layer)
      assert got == (1, 1), f"{name}, batch {b}: {got}"
