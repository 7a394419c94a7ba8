"""Mamba as in Mamba, Falcon Mamba and Jamba, Mamba-2, and LFM2's convolution, by the library transformers."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from scripts.golden.recipe import Recipe, drawn, under, with_parameters, with_torch_gradients

MAMBA = {"hidden_size": 6, "state_size": 3, "time_step_rank": 2, "num_hidden_layers": 1, "use_mambapy": False}
# variants of a layer: the family, the layer, the arguments of its configuration
LAYERS: dict[str, tuple[str, str, dict[str, Any]]] = {
  "mamba": ("mamba", "MambaMixer", MAMBA),
  "falcon": ("falcon_mamba", "FalconMambaMixer", MAMBA),
  "jamba": (
    *("jamba", "JambaMambaMixer"),
    {"hidden_size": 6, "mamba_d_state": 3, "mamba_dt_rank": 2, "num_hidden_layers": 1, "attn_layer_offset": 0}
    | {"attn_layer_period": 2, "use_mamba_kernels": False},
  ),
  "mamba2": (
    *("mamba2", "Mamba2Mixer"),
    {"hidden_size": 6, "state_size": 4, "num_heads": 4, "head_dim": 3, "n_groups": 2, "chunk_size": 8}
    | {"num_hidden_layers": 1, "time_step_limit": (0.4, 1.2)},
  ),
  "lfm2": ("lfm2", "Lfm2ShortConv", {"hidden_size": 6, "num_hidden_layers": 1, "layer_types": ["conv"]}),
}


def layers(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs each layer on its own, from an empty state."""
  del official
  entries: dict[str, np.ndarray] = {}
  for kind, (family, name, options) in LAYERS.items():
    rng = np.random.default_rng(0)
    folder = f"transformers.models.{family}"
    code = import_module(f"{folder}.modeling_{family}")
    config_of = import_module(f"{folder}.configuration_{family}")
    configs = {key.lower(): value for key, value in vars(config_of).items() if key.endswith("Config")}
    # Falcon Mamba's asks for the weights of norms that have none when it draws its weights
    start = {"initialize_mixer_weights": False} if kind == "falcon" else {}
    module = getattr(code, name)(configs[f"{family.replace('_', '')}config"](**options), layer_idx=0, **start).eval()
    if start:
      module.load_state_dict({name: value.zero_() for name, value in module.state_dict().items()})
    inputs = drawn(module, rng) | {"x": rng.standard_normal((2, 19, options["hidden_size"]))}

    def run(x, module=module, **parameters):
      return (with_parameters(module, parameters, lambda: module(x)),)

    entries |= under(kind, with_torch_gradients(run, inputs, rng))
  return entries


RECIPES = {"hugging_face": Recipe("huggingface/transformers", {}, "", layers, library="transformers")}
