"""LFM3 (Liquid AI 2026) as transformers saves it: gated convolutions, attention over a window and over everything.

Norms stand before and after each mixer, and attention has a gate for each head. The last norm is called
`embedding_norm`. Attention to everything turns a share of the pairs at the speeds of a whole head. The window counts
the current token.
"""

from typing import Any

from hybrids.recipes import lfm2
from interop.config import Config
from interop.parts import attention, attention_fields
from interop.rope import rope
from interop.rows import Row, dense, depthwise_conv, row

LETTERS = 2
IGNORED = "max_position_embeddings"
SKIPPED = (r"lm_head\.weight",)
RENAMED = ((r"self_attn\.g_proj", "self_attn.gate_proj"),)
KINDS = {"conv": "c", "sliding_attention": "w", "full_attention": "a"}
POSITIONS = {
  "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
  "full_attention": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.5},
}


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  size, heads = config.get("head_dim", 128), config.get("num_attention_heads")
  positions = config.get("rope_parameters", POSITIONS)
  turns = lambda kind: rope(Config({"rope_parameters": positions.get(kind, POSITIONS[kind])}, config.where), size)
  gate = "head" if config.get("use_attention_gate", True) else "none"
  return lfm2.lfm3(
    width=config.get("hidden_size"),
    pattern=_pattern(config),
    inner=config.get("intermediate_size"),
    heads=heads,
    kv_heads=config.get("num_key_value_heads", heads),
    window=config.get("sliding_window", 256),
    taps=config.get("conv_L_cache", 7),
    bias=config.get("conv_bias", False),
    softmax=attention_fields(config, head_size=size, gate=gate),
    full=turns("full_attention"),
    near=turns("sliding_attention"),
    norm_position="sandwich" if config.get("use_sandwich_norm", True) else "pre",
    norm_eps=config.get("norm_eps", 1e-5),
    tie=config.expect("tie_word_embeddings", True),
  )


def _pattern(config: Config) -> str:
  kind = lambda i: "full_attention" if i % 4 == 2 else "sliding_attention" if i % 4 == 0 and i else "conv"
  kinds = config.get("layer_types", [kind(i) for i in range(config.get("num_hidden_layers"))])
  return "".join(KINDS[kind] for kind in kinds)


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer, conv_bias = "model.layers.{i}.", config.get("conv_bias", False)
  conv, feed, softmax = layer + "conv.", layer + "feed_forward.", layer + "self_attn"
  after = [
    row(layer + "post_operator_norm.weight", "cwa/norm_after/scale"),
    row(layer + "post_ffn_norm.weight", "-/norm_after/scale"),
  ]
  return [
    row("model.embed_tokens.weight", "embed/embedding"),
    row(layer + "operator_norm.weight", "cwa/norm/scale"),
    *dense(conv + "in_proj", "c/mixer/in_proj", bias=conv_bias),
    *depthwise_conv(conv + "conv", "c/mixer/conv", bias=conv_bias),
    *dense(conv + "out_proj", "c/mixer/out_proj", bias=conv_bias),
    *attention(softmax, "wa/mixer", bias=config.get("attention_bias", False)),
    *(row(f"{softmax}.{name}_norm.weight", f"wa/mixer/{name}_norm/scale") for name in "qk"),
    *(dense(softmax + ".gate_proj", "wa/mixer/gate_proj") if config.get("use_attention_gate", True) else []),
    row(layer + "ffn_norm.weight", "-/norm/scale"),
    *dense(feed + "w1", "-/mixer/gate_proj"),
    *dense(feed + "w3", "-/mixer/in_proj"),
    *dense(feed + "w2", "-/mixer/out_proj"),
    *(after if config.get("use_sandwich_norm", True) else []),
    row("model.embedding_norm.weight", "body/final_norm/scale"),
  ]
