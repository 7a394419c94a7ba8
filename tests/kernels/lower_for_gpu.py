"""Kernels lowered for GPUs at real sizes, alone and on eight devices: run by test_pallas_gpu.py in its own process.

  python -m tests.kernels.lower_for_gpu [every]

Without "every" the first case of each op, and the steps on eight devices: lowering takes seconds a kernel.
"""

import contextlib
import sys

import jax
import jax.numpy as jnp

from kernels import gpu
from scripts.benchmarks.ops import of_size
from tests.kernels.lower_for_tpu import MESH, chosen, in_place, kernels_in, steps

# How many kernels forward and backward are. Time is cut where there would be too few blocks otherwise.
COUNTS = {
  ("RG-LRU's scan", jnp.float32): 2,
  ("S5", jnp.complex64): 4,
  ("bytes", jnp.bfloat16): 4,
  ("RG-LRU", jnp.float32): 2,
  ("RG-LRU", jnp.bfloat16): 2,
  ("Mamba 370M", jnp.float32): 2,
  ("Mamba 370M", jnp.bfloat16): 2,
  # forward alone is cut: backward a block has a quarter of the state, so there are enough of them
  ("groups", jnp.float32): 3,
  ("Mamba-2 130M", jnp.bfloat16): 2,
  ("Mamba-2, wide heads", jnp.bfloat16): 2,
}
LENGTHS = {"bytes": 65537}  # 2000 otherwise, which tiles do not divide either


def cases(every=True):
  """Names, ops, their arguments, and how many kernels they are, at real sizes; all, or each op's first."""
  return {
    f"{name} in {dtype.__name__}": (*of_size(name, dtype, b=8, t=LENGTHS.get(name, 2000)), COUNTS[name, dtype])
    for name, dtype in chosen(tuple(COUNTS), every)
  }


if __name__ == "__main__":
  jax.default_backend = lambda: "gpu"
  gpu.compute_capability = lambda: 9.0
  mesh = jax.make_mesh(tuple(MESH.values()), tuple(MESH), axis_types=(jax.sharding.AxisType.Auto,) * len(MESH))
  every = sys.argv[1:] == ["every"]
  for name, (op, arrays, count) in cases(every).items():
    reset = jax.ShapeDtypeStruct(arrays[1].shape[:2], jnp.bool)
    got = kernels_in(op, arrays, reset, "gpu")
    assert got == count, f"{name} alone: {got} kernels"
    with jax.set_mesh(mesh):
      # A device has an eighth of the rows and channels, so time is cut more often.
      got = kernels_in(op, arrays, None, "gpu")
    assert got == 4, f"{name} on a mesh: {got} kernels"
  for b in (1, 64) if every else (64,):
    for name, (op, arrays, layer, _) in steps(b).items():
      with jax.set_mesh(mesh) if b > 1 else contextlib.nullcontext():
        got = in_place(op, arrays, layer, "gpu")
      assert got == (1, 1), f"{name}, batch {b}: {got}"
