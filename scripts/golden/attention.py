"""Softmax and latent attention as in models of the library transformers, and xPos by microsoft/torchscale."""

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from scripts.golden.recipe import TORCH, Recipe, drawn, under, with_parameters, with_torch_gradients

START = 6  # of the second document in the second row
GROUPED: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}


def _rope(**more: Any) -> dict[str, Any]:
  return {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4} | more}


# kind -> folder, layer, rotations, configuration, its arguments
LAYERS: dict[str, tuple[str, str, str | None, str, dict[str, Any]]] = {
  "llama": ("llama", "LlamaAttention", "LlamaRotaryEmbedding", "LlamaConfig", GROUPED),
  "linear": (
    *("llama", "LlamaAttention", "LlamaRotaryEmbedding", "LlamaConfig"),
    GROUPED | _rope(rope_type="linear", factor=4.0),
  ),
  "yarn": (
    *("llama", "LlamaAttention", "LlamaRotaryEmbedding", "LlamaConfig"),
    GROUPED | {"head_dim": 16} | _rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=300),
  ),
  "gpt_neox": (
    *("gpt_neox", "GPTNeoXAttention", "GPTNeoXRotaryEmbedding", "GPTNeoXConfig"),
    {"num_attention_heads": 2} | _rope(partial_rotary_factor=0.5),
  ),
  "gpt2": ("gpt2", "GPT2Attention", None, "GPT2Config", {"n_head": 2}),
  "qwen3": ("qwen3", "Qwen3Attention", "Qwen3RotaryEmbedding", "Qwen3Config", GROUPED),
  "olmo2": (
    *("olmo2", "Olmo2Attention", "Olmo2RotaryEmbedding", "Olmo2Config"),
    {"num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-6},
  ),
  "qwen3_next": (
    *("qwen3_next", "Qwen3NextAttention", "Qwen3NextRotaryEmbedding", "Qwen3NextConfig"),
    GROUPED | {"head_dim": 8, "layer_types": ["full_attention"]} | _rope(partial_rotary_factor=0.25),
  ),
  "gemma2": (
    *("gemma2", "Gemma2Attention", "Gemma2RotaryEmbedding", "Gemma2Config"),
    GROUPED | {"query_pre_attn_scalar": 6, "attn_logit_softcapping": 2.0, "sliding_window": 5},
  ),
  "bloom": ("bloom", "BloomAttention", None, "BloomConfig", {"n_head": 4}),
}


LATENT: dict[str, Any] = {
  **{"num_attention_heads": 2, "num_key_value_heads": 2, "kv_lora_rank": 6, "qk_nope_head_dim": 4, "v_head_dim": 5},
  **{"rms_norm_eps": 1e-6, "qk_rope_head_dim": 16},
}
YARN: dict[str, Any] = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 300}
LATENT_LAYERS: dict[str, tuple[str, str, str | None, str, dict[str, Any]]] = {
  "v2": (
    *("deepseek_v2", "DeepseekV2Attention", "DeepseekV2RotaryEmbedding", "DeepseekV2Config"),
    LATENT | {"q_lora_rank": None},
  ),
  "v3": (
    *("deepseek_v3", "DeepseekV3Attention", "DeepseekV3RotaryEmbedding", "DeepseekV3Config"),
    LATENT | {"q_lora_rank": 6} | _rope(**YARN, mscale=0.7, mscale_all_dim=0.7),
  ),
}


def positions_and_mask(b: int, t: int, window: int | None) -> tuple[Any, Any]:
  """Returns positions, the second row's in two documents, and what is added to scores."""
  import torch

  position = torch.arange(t).expand(b, t).clone()
  position[1, START:] = torch.arange(t - START)
  time = torch.arange(t)
  back = time[:, None] - time
  document = (torch.arange(t) >= START) & (torch.arange(b) == 1)[:, None]
  see = (back >= 0) & (back < (window or t)) & (document[:, :, None] == document[:, None])
  return position, torch.zeros(see.shape).masked_fill(~see, torch.finfo(torch.float32).min)[:, None]


def layer_of(kind: str, layers: Mapping[str, tuple], d: int, b: int = 2, t: int = 17) -> dict[str, np.ndarray]:
  """Runs one layer at spread-out parameters: outputs and the gradients in all of them."""
  import torch
  import transformers

  folder, cls, rotations, config_of, options = layers[kind]
  code = import_module(f"transformers.models.{folder}.modeling_{folder}")
  config = getattr(transformers, config_of)(hidden_size=d, num_hidden_layers=1, attn_implementation="eager", **options)
  module = getattr(code, cls)(config, layer_idx=0).eval()
  rng = np.random.default_rng(0)
  inputs = drawn(module, rng) | {"x": rng.standard_normal((b, t, d))}
  position, mask = positions_and_mask(b, t, options.get("sliding_window"))

  def run(x, **parameters):
    more = {"attention_mask": mask}
    if rotations:
      more["position_embeddings"] = getattr(code, rotations)(config)(x, position)
    if kind == "bloom":
      alibi = code.build_alibi_tensor(torch.ones(b, t), options["n_head"], torch.float32)
      more |= {"residual": torch.zeros_like(x), "alibi": alibi}
    return (with_parameters(module, parameters, lambda: module(x, **more))[0],)

  return with_torch_gradients(run, inputs, rng)


def all_of(layers: Mapping[str, tuple], d: int, official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs each of the layers on its own."""
  del official
  return {name: value for kind in layers for name, value in under(kind, layer_of(kind, layers, d)).items()}


def xpos(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """Runs causal attention with queries and keys that it has turned and scaled."""
  import torch

  rng = np.random.default_rng(0)
  b, t, k = 2, 48, 8
  module = official["XPOS"](k)
  mask = torch.ones(t, t, dtype=torch.bool).tril()

  def run(q, k, v):
    scores = module(q, downscale=False) @ module(k, downscale=True).transpose(1, 2)
    return (torch.softmax(scores.masked_fill(~mask, -torch.inf), dim=-1) @ v,)

  return with_torch_gradients(run, {name: rng.standard_normal((b, t, k)) for name in "qkv"}, rng)


RECIPES = {
  "softmax": Recipe("huggingface/transformers", {}, "", partial(all_of, LAYERS, 8), library="transformers"),
  "mla": Recipe("huggingface/transformers", {}, "", partial(all_of, LATENT_LAYERS, 8), library="transformers"),
  "xpos": Recipe(
    "microsoft/torchscale",
    {
      "torchscale/component/xpos_relative_position.py": (
        *("fixed_pos_embedding", "rotate_every_two", "duplicate_interleave", "apply_rotary_pos_emb", "XPOS"),
      )
    },
    TORCH,
    xpos,
  ),
}
