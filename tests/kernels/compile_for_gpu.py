"""Kernels compiled for an H100 without one, to its own instructions: registers and spills, as ptxas counts them.

  python -m tests.kernels.compile_for_gpu [words in the case's name]

Run by hand, on JAX 0.12 with its plugin for CUDA 13 (jax-cuda13-plugin and jax-cuda13-pjrt of jaxlib's version), and
ptxas on the path. What the device then does is not seen: results, waits, and speed.
"""

import functools
import importlib.util
import os
import pathlib
import re
import sys
import tempfile

import jax
import jax.numpy as jnp
from jax._src.lib import xla_client
from jax.experimental import topologies

from kernels import gpu
from tests.kernels.lower_for_gpu import cases
from tests.kernels.lower_for_tpu import gradients, steps

DEVICE = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84942979072
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
# A warning may say the same number again.
COUNTS = r"Used (\d+) registers", r"(\d+) bytes spill stores", r"(\d+) bytes spill loads"


def plugin(name: str) -> pathlib.Path:
  found = importlib.util.find_spec(name)
  if found is None or not found.submodule_search_locations:
    raise SystemExit(f"{name} is not installed: nothing here compiles for GPUs")
  return pathlib.Path(next(iter(found.submodule_search_locations)))


def one_device() -> jax.sharding.Sharding:
  """A device that can be compiled for; the client that would look for real ones is not made."""
  os.environ["MOSAIC_GPU_RUNTIME_LIB_PATH"] = str(plugin("jax_cuda13_plugin") / "libmosaic_gpu_runtime.so")
  library = str(plugin("jax_plugins.xla_cuda13") / "xla_cuda_plugin.so")
  api = xla_client.load_pjrt_plugin_dynamically("cuda", library)
  xla_client.initialize_pjrt_plugin("cuda")
  found = xla_client.make_c_api_device_topology(api, "", topology="1x1x1", target_config=DEVICE)
  devices = topologies.TopologyDescription(found._make_compile_only_devices()).devices
  return jax.sharding.SingleDeviceSharding(devices[0])


def compiled(name, op, *args) -> None:
  with tempfile.TemporaryDirectory() as dump:
    os.environ["MOSAIC_GPU_DUMP_TO"] = dump
    jax.jit(op).trace(*args).lower(lowering_platforms=("cuda",)).compile()
    logs = sorted(pathlib.Path(dump).glob("*.ptxas"))
    assert logs, f"{name}: no kernel was compiled, or one of an earlier case was"
    for log in logs:
      registers, stores, loads = (max(map(int, re.findall(count, log.read_text()))) for count in COUNTS)
      print(
        f"{name}: {log.stem}: {registers} registers, {stores} bytes stored and {loads} loaded in spills", flush=True
      )


if __name__ == "__main__":
  sharding, words = one_device(), " ".join(sys.argv[1:])
  jax.default_backend = lambda: "gpu"
  gpu.compute_capability = lambda: 9.0

  def put(tree):
    return jax.tree.map(lambda z: jax.ShapeDtypeStruct(z.shape, z.dtype, sharding=sharding), tree)

  for name, (op, arrays, _) in cases().items():
    if words in name:
      op = functools.partial(op, impl="pallas_gpu")
      reset = jax.ShapeDtypeStruct(arrays[1].shape[:2], jnp.bool)
      bars = jax.eval_shape(lambda arrays, reset, op=op: op(*arrays, reset=reset), arrays, reset)
      compiled(name, functools.partial(gradients, op), put(arrays), put(reset), put(bars))
  for name, (op, arrays, layer, _) in steps(64).items():
    if words in name:
      op = functools.partial(op, impl="pallas_gpu")
      compiled(name, lambda arrays, layer, op=op: op(*arrays, **layer), put(arrays), put(layer))
