"""Linear attention with decays that no token chooses, or with none: retention, Based, MiniMax, RWKV-4."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from scripts.golden.recipe import TORCH, Recipe, drawn, under, with_parameters, with_torch_gradients

# RWKV's layers without the compiler.
UNCOMPILED = TORCH + "MyModule = nn.Module\ndef MyFunction(f):\n  return f\n"
# What torchscale wraps around every map, for layers of several modalities: nothing here.
ONE_WAY = TORCH + "def MultiwayWrapper(args, module):\n  return module\n"
FEATURES = TORCH + "InferenceParams = None\n"
B, T, D = 2, 37, 8


def retention(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs retention in parallel, by chunks and by steps; the first two with the eps that all of them agree at."""
  import torch

  rng = np.random.default_rng(0)
  entries: dict[str, np.ndarray] = {}
  for name, eps, t in (("parallel", 1e-9, T), ("chunks", 1e-9, 36), ("steps", 1e-2, 9)):
    args = SimpleNamespace(
      decoder_embed_dim=D, decoder_retention_heads=2, recurrent_chunk_size=12, layernorm_eps=eps, multiway=False
    )
    module, rotations = official["MultiScaleRetention"](args, D, 2 * D, 2), official["RetNetRelPos"](args)

    def run(x, name=name, t=t, module=module, rotations=rotations, **parameters):
      if name != "steps":
        chunks = name == "chunks"
        return (
          with_parameters(module, parameters, lambda: module(x, rotations(t, chunkwise_recurrent=chunks), chunks)),
        )
      state: dict[str, Any] = {}
      one = lambda i: module(x[:, i : i + 1], rotations(i + 1, activate_recurrent=True), incremental_state=state)
      return (with_parameters(module, parameters, lambda: torch.cat([one(i) for i in range(t)], dim=1)),)

    # large enough for 1e-9 to be nothing beside the squares that the norm divides by
    inputs = {"x": rng.standard_normal((B, t, D)), **drawn(module, rng, spread=0.7)}
    entries |= under(name, with_torch_gradients(run, inputs, rng))
  return entries


def based(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs the layer as matrices of tokens by tokens."""
  rng = np.random.default_rng(1)
  module = official["LinearAttention"](D, official["TaylorExp"](3), feature_dim=3, num_heads=2)

  def run(x, **parameters):
    return (with_parameters(module, parameters, lambda: module(x)),)

  return with_torch_gradients(run, {"x": rng.standard_normal((B, T, D)), **drawn(module, rng, spread=0.7)}, rng)


def lightning(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs a layer of MiniMax, the second of four, in blocks of 16 tokens."""
  del official
  from transformers import MiniMaxConfig
  from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention

  rng = np.random.default_rng(2)
  config = MiniMaxConfig(
    hidden_size=D, num_attention_heads=2, num_key_value_heads=2, head_dim=3, num_hidden_layers=4, block_size=16
  )
  module = MiniMaxLightningAttention(config, 1)

  def run(x, **parameters):
    return (with_parameters(module, parameters, lambda: module(x, None, None)[0]),)

  return with_torch_gradients(run, {"x": rng.standard_normal((B, T, D)), **drawn(module, rng, spread=0.7)}, rng)


def rwkv4(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs time mixing and channel mixing of a layer of RWKV-4."""
  del official
  import torch
  from transformers import RwkvConfig
  from transformers.models.rwkv.modeling_rwkv import RwkvFeedForward, RwkvSelfAttention

  rng = np.random.default_rng(3)
  config = RwkvConfig(hidden_size=D, num_hidden_layers=2, context_length=64)
  entries: dict[str, np.ndarray] = {}
  for name, module in (("time", RwkvSelfAttention(config)), ("channel", RwkvFeedForward(config))):
    # they come without values
    for parameter in module.parameters():
      torch.nn.init.zeros_(parameter)
    inputs = {"x": rng.standard_normal((B, T, D)), **drawn(module, rng, spread=0.7)}

    def run(x, module=module, **parameters):
      return (with_parameters(module, parameters, lambda: module(x)[0]),)

    entries |= under(name, with_torch_gradients(run, inputs, rng))
  return entries


def rwkv_channel(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs channel mixing of RWKV-6 and RWKV-7."""
  rng = np.random.default_rng(4)
  args = SimpleNamespace(n_embd=D, n_layer=2, dim_ffn=24)
  entries: dict[str, np.ndarray] = {}
  for name in ("x060", "x070"):
    module = official[f"RWKV_CMix_{name}"](args, 0)
    inputs = {"x": rng.standard_normal((B, T, D)), **drawn(module, rng, spread=0.7)}

    def run(x, module=module, **parameters):
      return (with_parameters(module, parameters, lambda: module(x)),)

    entries |= under(name, with_torch_gradients(run, inputs, rng))
  return entries


RECIPES = {
  "based": Recipe(
    "HazyResearch/based",
    {"based/models/mixers/linear_attention.py": ("FeatureMap", "TaylorExp", "LinearAttention")},
    FEATURES,
    based,
  ),
  "minimax_lightning": Recipe("huggingface/transformers", {}, "", lightning, library="transformers"),
  "hugging_face_rwkv4": Recipe("huggingface/transformers", {}, "", rwkv4, library="transformers"),
  "retention": Recipe(
    "microsoft/torchscale",
    {
      "torchscale/component/rms_norm.py": ("RMSNorm",),
      "torchscale/component/multiscale_retention.py": (
        "rotate_every_two",
        "theta_shift",
        "get_activation_fn",
        "MultiScaleRetention",
      ),
      "torchscale/architecture/retnet.py": ("RetNetRelPos",),
    },
    ONE_WAY,
    retention,
  ),
  "rwkv_channel": Recipe(
    "BlinkDL/RWKV-LM", {"RWKV-v5/src/model.py": ("RWKV_CMix_x060", "RWKV_CMix_x070")}, UNCOMPILED, rwkv_channel
  ),
}
