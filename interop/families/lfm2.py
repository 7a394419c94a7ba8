"""LFM2 and its mixture of experts (Liquid AI 2025) as transformers saves them: gated convolutions and attention.

The inner width of the MLP is two thirds of `intermediate_size`, rounded up, unless the config says that it is not. The
last norm is called `embedding_norm`. Older configs have `block_ff_dim`, `tie_embedding` and `full_attn_idxs`.
"""

from typing import Any

from hybrids.recipes import lfm2
from interop.config import Config
from interop.parts import experts
from interop.rope import rope
from interop.rows import Row, dense, depthwise_conv, row

LETTERS = 2
IGNORED = "block_dim block_mlp_init_scale block_norm_eps block_out_init_scale block_use_swiglu block_use_xavier_init"
IGNORED += " conv_dim conv_dim_out conv_use_xavier_init max_position_embeddings num_heads theta use_pos_enc"
SKIPPED = (r"lm_head\.weight",)


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  width, heads, kinds = config.get("hidden_size"), config.get("num_attention_heads"), _kinds(config)
  mixed = config.values["model_type"] == "lfm2_moe"
  return lfm2.model(
    width=width,
    depth=len(kinds),
    attention=[layer for layer, kind in enumerate(kinds) if kind == "full_attention"],
    inner=_inner(config),
    heads=heads,
    kv_heads=config.get("num_key_value_heads", heads),
    taps=config.get("conv_L_cache", 3),
    bias=config.get("conv_bias", False),
    softmax=rope(config, width // heads, theta=1e6),
    dense=config.get("num_dense_layers", 2) if mixed else None,
    experts=_moe(config) if mixed else {},
    norm_eps=config.get("norm_eps", 1e-5),
    tie=config.expect("tie_embedding", config.expect("tie_word_embeddings", True)),
  )


def _moe(config: Config) -> dict[str, Any]:
  return dict(
    experts=config.get("num_experts", 32),
    top_k=config.get("num_experts_per_tok", 4),
    inner=config.get("moe_intermediate_size", 1792),
    selection_bias=config.get("use_expert_bias", True),
    renormalize=config.get("norm_topk_prob", True),
    scale=float(config.get("routed_scaling_factor", 1.0)),
  )


def _inner(config: Config) -> int:
  inner = config.get("block_ff_dim", config.get("intermediate_size", 0)) or config.get("intermediate_size")
  if config.values["model_type"] == "lfm2_moe" or not config.get("block_auto_adjust_ff_dim", True):
    return inner
  inner, multiple = int(2 * inner / 3), config.get("block_multiple_of", 256)
  inner = int(config.get("block_ffn_dim_multiplier", 1.0) * inner)
  return -(-inner // multiple) * multiple


def _kinds(config: Config) -> list[str]:
  """Returns the kind of each layer."""
  depth = config.get("num_hidden_layers")
  full = config.get("full_attn_idxs", list(range(depth)))
  return config.get("layer_types", ["full_attention" if i in full else "conv" for i in range(depth)])


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer, bias = "model.layers.{i}.", config.get("conv_bias", False)
  conv, attention, feed = layer + "conv.", layer + "self_attn.", layer + "feed_forward"
  names = (("w1", "gate_proj"), ("w3", "in_proj"), ("w2", "out_proj"))
  mixture = []
  if config.values["model_type"] == "lfm2_moe":
    mixture = experts(feed, "e/mixer", config.get("num_experts", 32), "w1 w3 w2")
    if config.get("use_expert_bias", True):
      mixture.append(row(feed + ".expert_bias", "buffers:e/mixer/selection_bias"))
  return [
    row("model.embed_tokens.weight", "embed/embedding"),
    row(layer + "operator_norm.weight", "ca/norm/scale"),
    *dense(conv + "in_proj", "c/mixer/in_proj", bias=bias),
    *depthwise_conv(conv + "conv", "c/mixer/conv", bias=bias),
    *dense(conv + "out_proj", "c/mixer/out_proj", bias=bias),
    *(line for name in "qkv" for line in dense(f"{attention}{name}_proj", f"a/mixer/{name}_proj")),
    *(row(f"{attention}{name}_layernorm.weight", f"a/mixer/{name}_norm/scale") for name in "qk"),
    *dense(attention + "out_proj", "a/mixer/out_proj"),
    row(layer + "ffn_norm.weight", "-e/norm/scale"),
    *(line for name, ours in names for line in dense(f"{feed}.{name}", f"-/mixer/{ours}")),
    *mixture,
    row("model.embedding_norm.weight", "body/final_norm/scale"),
  ]
