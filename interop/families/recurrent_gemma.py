"""RecurrentGemma (Botev et al. 2024) as transformers saves it: RG-LRU blocks and attention over a window.

The embedding is multiplied by the root of the width as bfloat16 rounds it. Norms store their distance from 1.
`intermediate_size` is twice the width inside the MLP. The window counts the current token.
"""

from typing import Any

import ml_dtypes
import numpy as np

from hybrids.recipes import griffin
from interop.config import Config
from interop.rope import rope
from interop.rows import Row, dense, depthwise_conv, plus_one, reshaped, row

LETTERS = 2
# initial values, and what transformers reads no more
IGNORED = (
  "_block_types embeddings_scale_by_sqrt_dim final_w_init_variance_scale w_init_variance_scale max_position_embeddings"
)
SKIPPED = (r"model\.normalizer",)
KINDS = {"recurrent": "r", "attention": "a"}


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  width, heads = config.get("hidden_size"), config.get("num_attention_heads")
  size = config.get("head_dim", width // heads)
  config.expect("hidden_activation", "gelu_pytorch_tanh")
  turns = rope(config, size, share=0.5)
  if turns.get("scaling"):
    raise config.refuse("rope_parameters", "without a rule for longer contexts")
  section = griffin.model(
    width=width,
    depth=config.get("num_hidden_layers"),
    heads=heads,
    inner=config.get("lru_width", width),
    mlp=config.get("intermediate_size") // 2,
    head_size=size,
    kv_heads=config.get("num_key_value_heads", heads),
    window=config.get("attention_window_size", 2048),
    rotary=turns["rotary"],
    theta=turns["theta"],
    taps=config.get("conv1d_width", 4),
    scale=float(np.sqrt(width).astype(ml_dtypes.bfloat16)),
    softcap=config.get("logits_soft_cap", 30.0),
    norm_eps=config.get("rms_norm_eps", 1e-6),
    pattern="".join(KINDS[kind] for kind in config.get("block_types", ["recurrent", "recurrent", "attention"])),
    tie=config.get("tie_word_embeddings", True),
  )
  if "a" in section["body"]["letters"]:
    section["body"]["letters"]["a"]["bias"] = "all" if config.get("attention_bias", False) else "out"
  return section


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer, heads = "model.layers.{i}.", config.get("num_attention_heads")
  block, lru = layer + "temporal_block.", layer + "temporal_block.rg_lru."
  size, bias = config.get("lru_width", config.get("hidden_size")) // heads, config.get("attention_bias", False)
  return [
    row("model.embed_tokens.weight", "embed/embedding"),
    row(layer + "temporal_pre_norm.weight", "ra/norm/scale", plus_one),
    *dense(block + "linear_x", "r/mixer/x_proj", bias=True),
    *dense(block + "linear_y", "r/mixer/y_proj", bias=True),
    *depthwise_conv(block + "conv_1d", "r/mixer/conv", bias=True),
    row(lru + "input_gate_weight", "r/mixer/input_gate/kernel"),
    row(lru + "input_gate_bias", "r/mixer/input_gate/bias", reshaped(heads, size)),
    row(lru + "recurrent_gate_weight", "r/mixer/a_gate/kernel"),
    row(lru + "recurrent_gate_bias", "r/mixer/a_gate/bias", reshaped(heads, size)),
    row(lru + "recurrent_param", "r/mixer/a_param"),
    *dense(block + "linear_out", "r/mixer/out_proj", bias=True),
    *dense(block + "q_proj", "a/mixer/q_proj", bias=bias),
    *dense(block + "k_proj", "a/mixer/k_proj", bias=bias),
    *dense(block + "v_proj", "a/mixer/v_proj", bias=bias),
    *dense(block + "o_proj", "a/mixer/out_proj", bias=True),
    row(layer + "channel_pre_norm.weight", "-/norm/scale", plus_one),
    *dense(layer + "mlp_block.gate_proj", "-/mixer/gate_proj", bias=True),
    *dense(layer + "mlp_block.up_proj", "-/mixer/in_proj", bias=True),
    *dense(layer + "mlp_block.down_proj", "-/mixer/out_proj", bias=True),
    row("model.final_norm.weight", "body/final_norm/scale", plus_one),
    *([] if config.get("tie_word_embeddings", True) else [row("lm_head.weight", "head/table")]),
  ]
