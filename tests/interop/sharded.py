"""Loads a folder onto a mesh of 8 virtual devices and compares it with one loaded whole; run by test_sharded.py."""

import sys

import jax
import numpy as np

from interop import hf
from training import sharding


def main(folder: str) -> None:
  mesh = sharding.make_mesh(data=1, fsdp=4, tensor=2)
  model, sharded, _ = hf.load(folder, mesh=mesh)
  _, whole, _ = hf.load(folder)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), sharded, whole)
  kernel = sharded["params"]["body"]["a"]["mixer"]["q_proj"]["kernel"]
  parts = {shard.data.shape for shard in kernel.addressable_shards}
  assert parts == {(kernel.shape[0], kernel.shape[1] // 4, kernel.shape[2] // 2)}, parts
  print(f"{model.width} wide, {len(jax.tree.leaves(sharded))} leaves on {mesh.size} devices")


if __name__ == "__main__":
  main(sys.argv[1])
