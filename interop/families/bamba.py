"""Bamba (2024) as transformers saves it: Mamba-2 and attention, each followed by a gated MLP.

transformers turns half of each head, whatever the released config says.
"""

from typing import Any

from hybrids.recipes import bamba
from interop.config import Config
from interop.parts import attention, attention_fields, gated_mlp, mamba2, mamba2_fields, table
from interop.rope import rope
from interop.rows import Row, row

LETTERS = 2
IGNORED = "attn_rotary_emb mamba_chunk_size max_position_embeddings num_logits_to_keep z_loss_coefficient"
SKIPPED = ()


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  config.expect("hidden_act", "silu")
  width, heads, eps = config.get("hidden_size"), config.get("num_attention_heads"), config.get("rms_norm_eps", 1e-5)
  return bamba.model(
    width=width,
    depth=config.get("num_hidden_layers"),
    attention=config.get("attn_layer_indices", []),
    inner=config.get("intermediate_size"),
    heads=heads,
    kv_heads=config.get("num_key_value_heads", heads),
    ssm=mamba2_fields(config, inner=config.get("mamba_expand", 2) * width, eps=eps),
    softmax=attention_fields(config, **rope(config, width // heads, share=0.5)),
    mlp_bias=config.get("mlp_bias", False),
    norm_eps=eps,
    tie=config.get("tie_word_embeddings", False),
  )


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer, conv_bias = "model.layers.{i}.", config.get("mamba_conv_bias", True)
  return [
    row("model.embed_tokens.weight", "embed/embedding"),
    row(layer + "input_layernorm.weight", "ma/norm/scale"),
    *mamba2(layer + "mamba", "m/mixer", bias=config.get("mamba_proj_bias", False), conv_bias=conv_bias),
    *attention(layer + "self_attn", "a/mixer", bias=config.get("attention_bias", False)),
    row(layer + "pre_ff_layernorm.weight", "-/norm/scale"),
    *gated_mlp(layer + "feed_forward", "-/mixer", bias=config.get("mlp_bias", False)),
    row("model.final_layernorm.weight", "body/final_norm/scale"),
    *table(config, tie=False),
  ]
