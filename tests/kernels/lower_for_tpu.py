"""Kernels lowered for TPUs at real sizes, alone and on eight devices: run by test_pallas_tpu.py in its own process.

  python -m tests.kernels.lower_for_tpu [every]

Without "every" the first case of each op, on eight devices: lowering takes seconds a kernel.
"""

import contextlib
import functools
import itertools
import sys

import jax
import jax.numpy as jnp

from kernels.attention import attention
from kernels.conv_step import conv_step
from kernels.selective_step import selective_step
from kernels.ssd_step import ssd_step
from scripts.benchmarks.ops import SIZES, of_size

MESH = {"data": 2, "fsdp": 2, "tensor": 2}


def shapes(*given, dtype=jnp.float32):
  return tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in given)


CASES = (
  *((name, jnp.float32) for name in ("DeltaNet", "Gated DeltaNet", "GLA", "RWKV-6", "RG-LRU's scan", "RG-LRU")),
  *((name, jnp.float32) for name in ("Mamba 2.8B", "large states")),
  *((name, jnp.float32) for name in ("Mamba-2 2.7B", "Mamba-2, eight groups", "Mamba-2, narrow heads")),
  *((name, jnp.bfloat16) for name in ("RG-LRU's scan", "RG-LRU", "Mamba 370M")),
  ("S5", jnp.complex64),
)


def cases(every=True):
  """Names, ops and their arguments at real sizes, with lengths that chunks do not divide; all, or each op's first."""
  return {f"{name} in {dtype.__name__}": of_size(name, dtype, b=8, t=2000) for name, dtype in chosen(CASES, every)}


def chosen(cases, every):
  """The cases, (name in SIZES, dtype); without `every` the first of each op."""
  first = {SIZES[case[0]][0].split(",")[0]: case for case in reversed(cases)}
  return [case for case in cases if every or case in first.values()]


def attended(dtype, packed):
  """The gradient of attention of eight heads over two of keys, by three kernels of JAX's, and what it takes."""

  def run(q, k, v, segment=None):
    op = lambda *z: attention(*z, q_segment=segment, k_segment=segment, window=1024, softcap=30.0)
    return jax.grad(lambda *z: op(*z).astype(jnp.float32).sum(), (0, 1, 2))(q, k, v)

  heads = shapes((8, 2000, 8, 128), *[(8, 2000, 2, 128)] * 2, dtype=dtype)
  return run, (*heads, *shapes((8, 2000), dtype=jnp.int32)) if packed else heads


def steps(b):
  """Names, ops, their arguments by token and by layer, and how many of them are updated in place."""
  channels, state = (b, 5120), (b, 5120, 16)
  mamba = shapes(channels, channels, (5120, 16), (b, 1, 16), (b, 1, 16), (5120,), channels, state)

  def mamba2(h, p, g, k):
    e, m = h * p, h * p + 2 * g * k
    token = shapes((b, m), (b, e), (b, h), (b, 3, m), (b, h, k, p))
    return token, dict(zip(("kernel", "bias", "A", "D", "scale"), shapes((4, m), (m,), (h,), (h, 1), (e,))))

  norm = functools.partial(ssd_step, norm="gate_first")
  return {
    "a step of Mamba's convolution": (conv_step, shapes(channels, (b, 3, 5120), (4, 5120)), {}, 1),
    "a step of Mamba": (selective_step, mamba, {}, 1),
    "a step of Mamba-2": (norm, *mamba2(80, 64, 1, 128), 2),
    "a step of Mamba-2 with eight groups": (functools.partial(norm, norm_groups=8), *mamba2(128, 64, 8, 128), 2),
    "a step of narrow heads": (norm, *mamba2(6, 16, 1, 16), 2),
  }


# Platform -> what JAX calls it when it lowers, and how a kernel is called in what is lowered.
LOWERED = {"tpu": ("tpu", "tpu_custom_call"), "gpu": ("cuda", "custom_call @mosaic_gpu")}


def in_place(op, arrays, layer, platform="tpu") -> tuple[int, int]:
  """Counts the kernels, lowered, and their arguments that are updated in place."""
  op, (target, call) = functools.partial(op, impl=f"pallas_{platform}"), LOWERED[platform]
  text = jax.jit(lambda z, layer: op(*z, **layer)).trace(arrays, layer).lower(lowering_platforms=(target,)).as_text()
  return text.count(call), text.count("output_operand_alias<")


def gradients(op, arrays, reset, bars):
  return jax.vjp(lambda *z: op(*z, reset=reset), *arrays)[1](bars)


def kernels_in(op, arrays, reset, platform="tpu") -> int:
  """Counts the kernels in forward and backward, lowered."""
  op, (target, call) = functools.partial(op, impl=f"pallas_{platform}"), LOWERED[platform]
  bars = jax.eval_shape(lambda arrays, reset: op(*arrays, reset=reset), arrays, reset)
  traced = jax.jit(gradients, static_argnums=0).trace(op, arrays, reset, bars)
  text = traced.lower(lowering_platforms=(target,)).as_text()
  assert "all_gather" not in text, "a device gathers what others have"
  return text.count(call)


if __name__ == "__main__":
  jax.default_backend = lambda: "tpu"
  mesh = jax.make_mesh(tuple(MESH.values()), tuple(MESH), axis_types=(jax.sharding.AxisType.Auto,) * len(MESH))
  every = sys.argv[1:] == ["every"]
  for name, (op, arrays) in cases(every).items():
    reset = jax.ShapeDtypeStruct(arrays[1].shape[:2], jnp.bool)
    with jax.set_mesh(mesh):
      assert kernels_in(op, arrays, reset) == 2, f"{name} on a mesh"
    assert not every or kernels_in(op, arrays, None) == 2, f"{name} alone"
  for dtype, packed in itertools.product((jnp.float32, jnp.bfloat16), (False, True) if every else ()):
    run, arrays = attended(dtype, packed)
    for on_mesh in (False, True):
      with jax.set_mesh(mesh) if on_mesh else contextlib.nullcontext():
        text = jax.jit(run).trace(*arrays).lower(lowering_platforms=("tpu",)).as_text()
      assert text.count("tpu_custom_call") == 3, f"attention of {dtype.__name__}"
  for b in (1, 64) if every else ():
    for name, (op, arrays, layer, count) in steps(b).items():
      got = in_place(op, arrays, layer)
      assert got == (1, count), f"{name} alone, batch {b}: {got}"
      with jax.set_mesh(mesh):
        got = in_place(op, arrays, layer)
      assert got == (1, count), f"{name} on a mesh, batch {b}: {got}"
