"""LLaMA (Touvron et al. 2023) as transformers saves it: attention and a gated MLP, each after a norm."""

from typing import Any

from hybrids.recipes import transformer
from interop.config import Config
from interop.rope import rope
from interop.rows import Row, dense, row

LETTERS = 2
IGNORED = "max_position_embeddings"
SKIPPED = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  width, heads = config.get("hidden_size"), config.get("num_attention_heads")
  size = config.get("head_dim", width // heads)
  config.expect("hidden_act", "silu")
  return transformer.llama(
    width=width,
    depth=config.get("num_hidden_layers"),
    heads=heads,
    inner=config.get("intermediate_size"),
    kv_heads=config.get("num_key_value_heads", heads),
    head_size=size,
    norm_eps=config.get("rms_norm_eps", 1e-6),
    tie=config.get("tie_word_embeddings", False),
    bias="all" if config.get("attention_bias", False) else "none",
    mlp_bias=config.get("mlp_bias", False),
    **rope(config, size),
  )


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer, bias, mlp_bias = "model.layers.{i}.", config.get("attention_bias", False), config.get("mlp_bias", False)
  return [
    row("model.embed_tokens.weight", "embed/embedding"),
    row(layer + "input_layernorm.weight", "a/norm/scale"),
    *dense(layer + "self_attn.q_proj", "a/mixer/q_proj", bias=bias),
    *dense(layer + "self_attn.k_proj", "a/mixer/k_proj", bias=bias),
    *dense(layer + "self_attn.v_proj", "a/mixer/v_proj", bias=bias),
    *dense(layer + "self_attn.o_proj", "a/mixer/out_proj", bias=bias),
    row(layer + "post_attention_layernorm.weight", "-/norm/scale"),
    *dense(layer + "mlp.gate_proj", "-/mixer/gate_proj", bias=mlp_bias),
    *dense(layer + "mlp.up_proj", "-/mixer/in_proj", bias=mlp_bias),
    *dense(layer + "mlp.down_proj", "-/mixer/out_proj", bias=mlp_bias),
    row("model.norm.weight", "body/final_norm/scale"),
    *([] if config.get("tie_word_embeddings", False) else [row("lm_head.weight", "head/table")]),
  ]
