"""Kernels compiled at real sizes by the TPUs' own compiler, which needs no TPU: it is in libtpu (`EXTRAS=tpu`).

  python -m tests.kernels.compile_for_tpu [--filter TEXT] [v5e:2x2 v6e:2x2 …]

Prints for each case the seconds and XLA's temporary memory, or why it does not compile; then it ends with an error.
This says that registers, layouts and VMEM suffice, not that the numbers are right or the kernel fast.
"""

import argparse
import functools
import itertools
import os
import time

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from scripts.scale_on_tpus import SETTINGS
from tests.kernels.lower_for_tpu import attended, cases, gradients, steps


def programs():
  """Names, functions and the shapes of their arguments."""
  for name, (op, arrays) in cases().items():
    op = functools.partial(op, impl="pallas_tpu")
    for reset in (None, jax.ShapeDtypeStruct(arrays[1].shape[:2], jnp.bool)):
      masked = "" if reset is None else ", with resets"
      forward = lambda arrays, reset, op=op: op(*arrays, reset=reset)
      yield f"{name}{masked}, forward", forward, (arrays, reset)
      bars = jax.eval_shape(forward, arrays, reset)
      yield f"{name}{masked}, forward+backward", functools.partial(gradients, op), (arrays, reset, bars)
  for dtype, packed in itertools.product((jnp.float32, jnp.bfloat16), (False, True)):
    yield f"attention of {dtype.__name__}{', packed' if packed else ''}", *attended(dtype, packed)
  for b in (1, 64):
    for name, (op, arrays, layer, _) in steps(b).items():
      step = lambda arrays, layer, op=functools.partial(op, impl="pallas_tpu"): op(*arrays, **layer)
      yield f"{name}, batch {b}", step, (arrays, layer)


def why_not(run, shapes, device) -> str | None:
  """What the compiler says against a program, else None."""
  placed = jax.sharding.SingleDeviceSharding(device)
  shapes = jax.tree.map(lambda z: jax.ShapeDtypeStruct(z.shape, z.dtype, sharding=placed), shapes)
  start = time.perf_counter()
  try:
    compiled = jax.jit(run).trace(*shapes).lower(lowering_platforms=("tpu",)).compile()
  except jax.errors.JaxRuntimeError as e:
    return str(e)
  temporary = compiled.memory_analysis().temp_size_in_bytes / 2**20
  print(f"  compiled in {time.perf_counter() - start:.1f} s, {temporary:.0f} MiB temporary", flush=True)
  return None


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--filter", default="")
  parser.add_argument("topologies", nargs="*", default=["v5e:2x2", "v6e:2x2"])
  args = parser.parse_args()
  os.environ |= {name: os.environ.get(name, value) for name, value in SETTINGS.items()}
  jax.config.update("jax_platforms", "cpu")
  # what chooses by platform sees a TPU
  jax.default_backend = lambda: "tpu"
  refused = []
  for topology in args.topologies:
    device = topologies.get_topology_desc(topology_name=topology, platform="tpu").devices[0]
    for name, run, shapes in programs():
      if args.filter in name:
        print(f"{topology}: {name}", flush=True)
        reason = why_not(run, shapes, device)
        if reason is not None:
          print(f"  {reason}", flush=True)
          refused.append(f"{topology}: {name}")
  if refused:
    raise SystemExit("\n".join(["does not compile:", *refused]))


if __name__ == "__main__":
  main()
