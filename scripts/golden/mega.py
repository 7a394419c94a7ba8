"""Mega by facebookresearch/mega."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from scripts.golden.recipe import TORCH, Recipe, drawn, under, with_parameters, with_torch_gradients

# variants of the layer: their arguments
MEGA: dict[str, dict[str, Any]] = {
  "whole": {"rel_pos_bias": "rotary", "chunk_size": -1, "max_positions": 12},
  "chunks": {"rel_pos_bias": "simple", "chunk_size": 4},
  "relu2": {"rel_pos_bias": "simple", "chunk_size": 4, "attention_activation": "relu2"},
  "laplace": {"rel_pos_bias": "rotary", "chunk_size": 4, "attention_activation": "laplace", "bidirectional": True},
  "both_ways": {"rel_pos_bias": "simple", "chunk_size": 4, "bidirectional": True},
}


def mega(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """Runs the layer without its norm; if causal and without chunks also by steps, with the averages at the end.

  What is added to its result, the input, is taken off again.
  """
  import torch
  import torch.nn.functional as F

  official["utils"] = SimpleNamespace(
    get_activation_fn=lambda activation: getattr(F, activation),
    softmax=lambda x, dim, onnx_trace: torch.softmax(x, dim),
    relu2=official["relu2"],
    laplace=official["laplace"],
  )
  nothing = lambda *args, **options: lambda x, **more: x
  official |= {name: nothing for name in ("FairseqDropout", "FairseqFeatureDropout", "SequenceNorm")}
  entries: dict[str, np.ndarray] = {}
  b, t, d = 2, 12, 4
  for kind, options in MEGA.items():
    rng = np.random.default_rng(0)
    module = official["MovingAverageGatedAttention"](d, zdim=4, hdim=6, ndim=3, **options)
    inputs = drawn(module, rng) | {"x": rng.standard_normal((t, b, d))}
    span = options["chunk_size"] if options["chunk_size"] > 0 else t
    mask = torch.ones(span, span).tril()
    mask = mask.log() if options.get("attention_activation", "softmax") == "softmax" else mask
    mask = None if options.get("bidirectional") else mask

    def run(x, module=module, mask=mask, kind=kind, **parameters):
      def steps():
        state = {}
        outputs = torch.cat([module(token, incremental_state=state)[0] for token in x.split(1)])
        return outputs - x, module.move._get_input_buffer(state)["prev_state"]

      y = with_parameters(module, parameters, lambda: module(x, attn_mask=mask)[0]) - x
      return (y, *with_parameters(module, parameters, steps)) if kind == "whole" else (y,)

    entries |= under(kind, with_torch_gradients(run, inputs, rng))
  return entries


MODULES = "fairseq/modules"
RECIPES = {
  "mega": Recipe(
    "facebookresearch/mega",
    {
      "fairseq/incremental_decoding_utils.py": ("FairseqIncrementalState", "with_incremental_state"),
      "fairseq/utils.py": ("relu2", "laplace"),
      f"{MODULES}/relative_positional_bias.py": ("SimpleRelativePositionalBias", "RotaryRelativePositionalBias"),
      f"{MODULES}/exponential_moving_average.py": ("MultiHeadEMA",),
      f"{MODULES}/moving_average_gated_attention.py": ("MovingAverageGatedAttention",),
    },
    TORCH + "import uuid\nfrom torch.nn import Parameter\n",
    mega,
  )
}
