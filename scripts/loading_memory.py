"""Measures the host's memory while a checkpoint is loaded onto eight virtual devices, sharded by fsdp.

  ./dev python -m scripts.loading_memory FOLDER [--gigabytes 1]

It writes a made-up Llama of about that size in bfloat16 into FOLDER, unless one is there, and loads it in a fresh
process. The devices are this host's, so that it holds all parameters at the end; the bound is on what it holds besides:
the largest shard and one tensor.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

DEVICES = 8
WIDTH, INNER, HEADS, VOCAB = 2048, 5632, 16, 32_000
BYTES = 2
# bytes of the tensors of a layer, and of the two tables
LAYER = BYTES * (4 * WIDTH * WIDTH + 3 * WIDTH * INNER)
TABLES = BYTES * 2 * VOCAB * WIDTH


def write(folder: Path, gigabytes: float) -> None:
  """Writes the checkpoint, one tensor at a time, in files of at most half a gigabyte."""
  import ml_dtypes
  import numpy as np

  from interop import tensors

  depth = max(1, round((gigabytes * 1e9 - TABLES) / LAYER))
  config = dict(
    model_type="llama", hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=depth, vocab_size=VOCAB,
    num_attention_heads=HEADS, num_key_value_heads=HEADS, rms_norm_eps=1e-5, hidden_act="silu", rope_theta=1e4,
    max_position_embeddings=2048, tie_word_embeddings=False,
  )  # fmt: skip
  shapes = {
    "model.embed_tokens.weight": (VOCAB, WIDTH),
    "lm_head.weight": (VOCAB, WIDTH),
    "model.norm.weight": (WIDTH,),
  }
  for i in range(depth):
    layer = f"model.layers.{i}."
    shapes |= {f"{layer}self_attn.{name}_proj.weight": (WIDTH, WIDTH) for name in "qkvo"}
    shapes |= {f"{layer}mlp.{name}_proj.weight": (INNER, WIDTH) for name in ("gate", "up")}
    shapes |= {f"{layer}mlp.down_proj.weight": (WIDTH, INNER)}
    shapes |= {f"{layer}{name}_layernorm.weight": (WIDTH,) for name in ("input", "post_attention")}
  made = ((name, np.full(shape, 0.01, ml_dtypes.bfloat16)) for name, shape in shapes.items())
  tensors.write(folder, config, made, 5e8)


def anonymous() -> int:
  """Returns the bytes of this process that are no file's pages, which the system may drop at any time."""
  lines = Path("/proc/self/status").read_text().splitlines()
  return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


class Peak:
  """The most that `anonymous` gives inside, looked at every two milliseconds."""

  def __enter__(self) -> "Peak":
    self.bytes, self._done = anonymous(), threading.Event()
    self._thread = threading.Thread(target=self._watch)
    self._thread.start()
    return self

  def _watch(self) -> None:
    while not self._done.is_set():
      self.bytes = max(self.bytes, anonymous())
      time.sleep(0.002)

  def __exit__(self, *_: Any) -> None:
    self._done.set()
    self._thread.join()


def load(folder: Path) -> dict[str, float]:
  """Loads the folder in this process and returns what it took, in megabytes."""
  import jax

  jax.config.update("jax_num_cpu_devices", DEVICES)
  import numpy as np

  from interop import hf
  from training import sharding

  mesh = sharding.make_mesh(data=1, fsdp=DEVICES)
  # what the first array takes is no part of the loading
  jax.block_until_ready(jax.numpy.zeros(8))
  before = anonymous()
  with Peak() as peak:
    _, variables, _ = hf.load(folder, mesh=mesh)
  leaves = jax.tree.leaves(variables)
  shards = [shard.data.nbytes for leaf in leaves for shard in leaf.addressable_shards]
  tensor = max(np.prod(leaf.shape[1:]) if leaf.ndim > 2 else leaf.size for leaf in leaves) * (4 + BYTES)
  held = sum(shards)
  sizes = dict(parameters=held, beyond_them=peak.bytes - before - held, largest_shard=max(shards), one_tensor=tensor)
  sizes["bound"] = sizes["largest_shard"] + sizes["one_tensor"]
  return {name: round(float(size) / 1e6, 1) for name, size in sizes.items()}


def main(arguments: list[str]) -> int:
  """Writes the checkpoint, loads it in a fresh process, and prints its numbers."""
  parser = argparse.ArgumentParser(prog="python -m scripts.loading_memory", description=str(__doc__).splitlines()[0])
  parser.add_argument("folder", type=Path)
  parser.add_argument("--gigabytes", type=float, default=1.0)
  parser.add_argument("--load", action="store_true", help="loads only, in this process")
  args = parser.parse_args(arguments)
  if args.load:
    print(json.dumps(load(args.folder)))
    return 0
  if not args.folder.exists():
    write(args.folder, args.gigabytes)
  environment = os.environ | {"JAX_PLATFORMS": "cpu"}
  command = [sys.executable, "-m", "scripts.loading_memory", str(args.folder), "--load"]
  return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
