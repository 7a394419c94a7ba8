"""What a device can do and what it holds: the peak that model FLOP/s are compared with, and the memory in use.

Model FLOP/s utilisation (MFU) is the operations that the model needs, forward and both gradients, over what the devices
could have done in the same time (Chowdhery et al. 2022, arXiv:2204.02311, app. B); what is computed again counts
nothing.
"""

import functools
import platform
import re
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# dense bfloat16 FLOP/s of one JAX device, by its `device_kind`; the first that is found in it counts. TPUs: pages
# "TPU v…" of cloud.google.com/tpu/docs, a v2's or v3's chip being two devices. Others: data sheets, without sparsity.
PEAKS: tuple[tuple[str, float], ...] = (
  (r"TPU v2", 22.5e12),
  (r"TPU v3", 61.5e12),
  (r"TPU v4", 275e12),
  (r"TPU v5 ?(lite|e)", 197e12),
  (r"TPU v5", 459e12),
  (r"TPU v6 ?(lite|e)", 918e12),
  (r"B200", 2250e12),
  (r"H100 PCIe", 756e12),
  (r"H(100|200)", 989e12),
  (r"A100", 312e12),
  (r"A10\b", 125e12),
  (r"L40S", 362e12),
  (r"L4\b", 121e12),
  (r"RTX 4090", 165e12),
  (r"MI300X", 1307e12),
)
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
# the square matrices that are multiplied where no peak is known: rows and dtype, on a CPU and where a product of few
# rows is over before it has begun
CPU, ACCELERATOR = (512, "float32"), (8192, "bfloat16")
TIMES = 5


class Peak(NamedTuple):
  """FLOP/s of all devices together, and where the number is from."""

  flops_per_s: float
  source: str


def peak() -> Peak:
  """Returns the peak of all devices of the run; where none is known, as on CPUs, the rate of a product."""
  kind = jax.devices()[0].device_kind
  known = named(kind)
  if known:
    return Peak(known * jax.device_count(), f"{kind}'s bfloat16 peak of {known / 1e12:g} TFLOP/s")
  on_cpu = jax.default_backend() == "cpu"
  side, dtype = CPU if on_cpu else ACCELERATOR
  rate = measured(side, dtype)
  # virtual devices of one CPU share its cores
  count = jax.process_count() if on_cpu else jax.device_count()
  return Peak(rate * count, f"the measured {rate / 1e9:.3g} GFLOP/s of a {dtype} product of {side} rows")


def named(kind: str) -> float | None:
  """Returns the peak of a device of this kind, or None where the table has none."""
  return next((flops for pattern, flops in PEAKS if re.search(pattern, kind)), None)


@functools.cache
def measured(side: int, dtype: str) -> float:
  """Returns the best FLOP/s of a few products of square matrices on one device."""
  # in a thread of its own, where no mesh of several devices is in force
  with ThreadPoolExecutor(1) as pool:
    return pool.submit(_measure, side, dtype).result()


def _measure(side: int, dtype: str) -> float:
  x = jax.device_put(np.ones((side, side), jnp.dtype(dtype)), jax.local_devices()[0])
  multiply = jax.jit(jnp.matmul)
  multiply(x, x).block_until_ready()
  best = float("inf")
  for _ in range(TIMES):
    began = time.perf_counter()
    multiply(x, x).block_until_ready()
    best = min(best, time.perf_counter() - began)
  return 2 * side**3 / best


def peak_bytes() -> int:
  """Returns the most memory in use so far: of the fullest device here or, where devices do not say, of the process."""
  found = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()]
  # Linux counts in KiB, macOS in bytes
  unit = 1 if sys.platform == "darwin" else 1024
  return max(found) or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def surroundings() -> dict[str, Any]:
  """Returns the device, the versions and the memory that a result was made with."""
  device = jax.devices()[0]
  versions = {name: version(name) for name in LIBRARIES}
  return {
    "device": f"{platform.processor() or platform.machine()} ({device.device_kind})",
    "platform": device.platform,
    "devices": jax.device_count(),
    "processes": jax.process_count(),
    "peak_bytes": peak_bytes(),
    "versions": {"python": platform.python_version()} | versions,
  }
