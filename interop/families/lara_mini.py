"""Lara Mini (2026) as transformers saves it: gated delta nets, attention over a window and over everything, experts.

Rows of the delta net's input map are those of queries, keys, values, gates, β and decays, in this order. Attention to
everything has no positions. The shared expert has no gate.
"""

from typing import Any

from hybrids.recipes import lara_mini
from interop.config import Config
from interop.families.qwen3_next import delta, delta_sizes, expert_fields
from interop.parts import attention, gated_mlp, stacked_experts, table
from interop.rope import rope
from interop.rows import Row, dense, depthwise, row, split, turn

LETTERS = 2
# transformers writes the intermediate_size of an argument, which nothing reads
IGNORED = "intermediate_size max_position_embeddings"
SKIPPED = (r"lm_head\.weight",)
KINDS = {"linear_attention": "d", "sliding_attention": "w", "full_attention": "a"}


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  config.expect("hidden_act", "silu")
  attention_heads, head_size = config.get("num_attention_heads"), config.get("head_dim", 128)
  return lara_mini.model(
    width=config.get("hidden_size"),
    pattern="".join(KINDS[kind] for kind in _kinds(config)),
    delta=delta(config),
    attention=dict(
      heads=attention_heads,
      kv_heads=config.get("num_key_value_heads", attention_heads),
      head_size=head_size,
      bias="all" if config.get("attention_bias", False) else "none",
    ),
    turns=rope(config, head_size),
    window=config.get("sliding_window", 512),
    experts=expert_fields(config, experts=128, top_k=4),
    norm_eps=config.get("rms_norm_eps", 1e-6),
    tie=config.get("tie_word_embeddings", True),
  )


def _kinds(config: Config) -> list[str]:
  d, w, a = KINDS
  return config.get("layer_types", [(d, w, d, a, w)[i % 5] for i in range(config.get("num_hidden_layers"))])


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer, (heads, values, size, value_size) = "model.layers.{i}.", delta_sizes(config)
  net, keys = layer + "linear_attn.", heads * size
  parts = [f"d/mixer/{name}_proj/kernel" for name in ("qkv/q", "qkv/k", "qkv/v", "g", "b", "a")]
  sizes = split(keys, keys, values * value_size, values * value_size, values, values)
  return [
    row("model.embed_tokens.weight", "embed/embedding"),
    row(layer + "input_layernorm.weight", "dwa/norm/scale"),
    row(net + "in_proj.weight", parts, sizes, turn),
    row(net + "conv1d.weight", "d/mixer/qkv/conv/kernel", depthwise),
    row(net + "A_log", "d/mixer/A_log"),
    row(net + "dt_bias", "d/mixer/dt_bias"),
    row(net + "out_norm.weight", "d/mixer/gated_norm/scale"),
    *dense(net + "out_proj", "d/mixer/out_proj"),
    *attention(layer + "self_attn", "wa/mixer", bias=config.get("attention_bias", False)),
    *(row(f"{layer}self_attn.{name}_norm.weight", f"wa/mixer/{name}_norm/scale") for name in "qk"),
    row(layer + "post_attention_layernorm.weight", "e/norm/scale"),
    row(layer + "mlp.gate.weight", "e/mixer/router", turn),
    *stacked_experts(layer + "mlp.experts", "e/mixer", config.get("moe_intermediate_size", 512)),
    *gated_mlp(layer + "mlp.shared_expert", "e/mixer/shared_expert"),
    row("model.norm.weight", "body/final_norm/scale"),
    *table(config, tie=True),
  ]
