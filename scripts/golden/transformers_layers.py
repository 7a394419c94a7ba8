"""Runs layers of the installed `transformers` on fixed random numbers, and writes tests/golden/ as `record` does.

python -m scripts.golden.transformers_layers NAME
"""

import argparse
import importlib
import json
import time
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

from scripts.golden import record

B, T, D = 2, 70, 8  # more tokens than one of their chunks has


class Layer(NamedTuple):
  module: str  # under transformers.models
  cls: str
  config: str
  sizes: dict[str, Any]


# Keys of 8 numbers: some of those of 3 are so short that float32 does not know gradients through their length to 1e-5.
NUMBERS = {
  "kimi_delta": Layer(
    "kimi_linear.modeling_kimi_linear",
    "KimiLinearDeltaAttention",
    "KimiLinearConfig",
    dict(linear_num_heads=2, linear_head_dim=8, linear_conv_kernel_dim=3, rms_norm_eps=1e-5),
  ),
  "qwen3_next_delta": Layer(
    "qwen3_next.modeling_qwen3_next",
    "Qwen3NextGatedDeltaNet",
    "Qwen3NextConfig",
    dict(
      linear_num_key_heads=2,
      linear_num_value_heads=4,
      linear_key_head_dim=8,
      linear_value_head_dim=4,
      linear_conv_kernel_dim=4,
      rms_norm_eps=1e-6,
    ),
  ),
}


def numbers(layer: Layer) -> dict[str, np.ndarray]:
  """One layer at spread-out parameters, outputs and the gradients in all of them."""
  import torch
  import transformers

  rng = np.random.default_rng(0)
  depth = dict(num_hidden_layers=4, layer_types=["linear_attention"] * 4)
  config = getattr(transformers, layer.config)(hidden_size=D, **depth, **layer.sizes)
  module = getattr(importlib.import_module(f"transformers.models.{layer.module}"), layer.cls)(config, 0)

  def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    if "A_log" in name:
      return np.log(rng.uniform(0.05, 1, shape))
    return 1 + 0.3 * rng.standard_normal(shape) if "norm" in name else 0.4 * rng.standard_normal(shape)

  given = {name: draw(name, tuple(value.shape)) for name, value in module.named_parameters()}

  def run(x, **parameters):
    return (torch.func.functional_call(module, parameters, (x,)),)

  return record.with_torch_gradients(run, {"x": rng.standard_normal((B, T, D)), **given}, rng)


def main() -> None:
  """Writes tests/golden/NAME.npz, whose entry `about` says in JSON where the numbers come from."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("name", choices=sorted(NUMBERS))
  name = parser.parse_args().name
  about = {
    "library": "transformers",
    "class": f"{NUMBERS[name].module}.{NUMBERS[name].cls}",
    "date": time.strftime("%Y-%m-%d"),
    "versions": {library: version(library) for library in ("transformers", "torch", "numpy")},
  }
  entries: dict[str, Any] = {"about": np.array(json.dumps(about))} | numbers(NUMBERS[name])
  np.savez_compressed(record.FOLDER / f"{name}.npz", **entries)
  print(json.dumps(about))


if __name__ == "__main__":
  main()
