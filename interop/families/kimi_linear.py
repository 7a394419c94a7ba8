"""Kimi Linear (Kimi Team 2025) as transformers saves it, and as released: delta attention, latent attention, experts.

The released config counts layers from 1, in `linear_attn_config`. transformers ignores `tie_word_embeddings`. The norm
inside of latent attention has an epsilon of 1e-6 whatever `rms_norm_eps` is.
"""

from typing import Any

from hybrids.recipes import kimi_linear
from interop.config import Config
from interop.rows import Row, dense, depthwise, each, join, reshaped, row, split, stack, turn, unpack

LETTERS = 2
# sizes that follow from others, and what transformers ignores
IGNORED = (
  "first_k_dense_replace head_dim max_position_embeddings mla_use_nope model_max_length moe_layer_freq "
  "num_key_value_heads num_nextn_predict_layers qk_head_dim rope_parameters rope_scaling rope_theta "
  "tie_word_embeddings use_grouped_topk"
)
SKIPPED = ()
RENAMED = ((r"\.mlp\.", ".block_sparse_moe."),)
KINDS = {"linear_attention": "k", "full_attention": "a"}


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  config.expect("hidden_act", "silu")
  config.expect("attention_bias", False)
  config.expect("moe_router_activation_func", "sigmoid")
  heads, size, taps = _delta(config)
  width = config.get("moe_intermediate_size", 1024)
  return kimi_linear.model(
    width=config.get("hidden_size"),
    pattern=_pattern(config),
    delta=dict(heads=heads, head_size=size, taps=taps),
    latent=dict(
      heads=config.get("num_attention_heads"),
      rank=config.get("kv_lora_rank", 512),
      q_rank=config.get("q_lora_rank", None),
      head_size=config.get("qk_nope_head_dim", 128),
      rope_size=config.get("qk_rope_head_dim", 64),
      value_size=config.get("v_head_dim", 128),
      norm_eps=1e-6,
    ),
    experts=dict(
      experts=_experts(config),
      top_k=config.get("num_experts_per_token", config.get("num_experts_per_tok", 8)),
      inner=width,
      groups=config.get("num_expert_group", config.get("n_group", 1)),
      top_groups=config.get("topk_group", 1),
      renormalize=config.get("moe_renormalize", config.get("norm_topk_prob", True)),
      scale=float(config.get("routed_scaling_factor", 2.446)),
      shared=config.get("num_shared_experts", config.get("n_shared_experts", 1)) * width,
    ),
    inner=config.get("intermediate_size"),
    norm_eps=config.get("rms_norm_eps", 1e-5),
  )


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer, (heads, size, _) = "model.layers.{i}.", _delta(config)
  attention, experts = layer + "self_attn.", layer + "block_sparse_moe."
  channels, count = heads * size, _experts(config)
  nope, values = config.get("qk_nope_head_dim", 128), config.get("v_head_dim", 128)
  latent = split(config.get("kv_lora_rank", 512), config.get("qk_rope_head_dim", 64))
  up = unpack(config.get("num_attention_heads"), nope, values)
  convs = [f"{attention}{name}_conv1d.weight" for name in "qkv"]
  return [
    row("model.embed_tokens.weight", "embed/embedding"),
    row(layer + "input_layernorm.weight", "ka/norm/scale"),
    *dense(attention + "q_proj", "k/mixer/qkv/q_proj"),
    *dense(attention + "k_proj", "k/mixer/qkv/k_proj"),
    *dense(attention + "v_proj", "k/mixer/qkv/v_proj"),
    row(convs, "k/mixer/qkv/conv/kernel", depthwise, join(channels, channels, channels, axis=-1)),
    *dense(attention + "f_a_proj", "k/mixer/a_proj/down"),
    *dense(attention + "f_b_proj", "k/mixer/a_proj/up"),
    row(attention + "A_log", "k/mixer/A_log", reshaped(1, 1, heads, 1)),
    row(attention + "dt_bias", "k/mixer/dt_bias"),
    *dense(attention + "b_proj", "k/mixer/b_proj"),
    *dense(attention + "g_a_proj", "k/mixer/g_proj/down"),
    *dense(attention + "g_b_proj", "k/mixer/g_proj/up"),
    row(attention + "o_norm.weight", "k/mixer/gated_norm/scale"),
    *dense(attention + "o_proj", "ka/mixer/out_proj"),
    *_queries(config, attention),
    row(attention + "kv_a_proj_with_mqa.weight", ["a/mixer/c_proj/kernel", "a/mixer/r_proj/kernel"], latent, turn),
    row(attention + "kv_a_layernorm.weight", "a/mixer/c_norm/scale"),
    row(attention + "kv_b_proj.weight", ["a/mixer/k_up", "a/mixer/v_up"], up, turn),
    row(layer + "post_attention_layernorm.weight", "-e/norm/scale"),
    *dense(experts + "gate_proj", "-/mixer/gate_proj"),
    *dense(experts + "up_proj", "-/mixer/in_proj"),
    *dense(experts + "down_proj", "-/mixer/out_proj"),
    row(experts + "gate.weight", "e/mixer/router", turn),
    row(experts + "gate.e_score_correction_bias", "buffers:e/mixer/selection_bias"),
    row(each(experts + "experts.{e}.w1.weight", e=count), "e/mixer/gate_proj", turn, stack),
    row(each(experts + "experts.{e}.w3.weight", e=count), "e/mixer/in_proj", turn, stack),
    row(each(experts + "experts.{e}.w2.weight", e=count), "e/mixer/out_proj", turn, stack),
    *dense(experts + "shared_experts.gate_proj", "e/mixer/shared_expert/gate_proj"),
    *dense(experts + "shared_experts.up_proj", "e/mixer/shared_expert/in_proj"),
    *dense(experts + "shared_experts.down_proj", "e/mixer/shared_expert/out_proj"),
    row("model.norm.weight", "body/final_norm/scale"),
    row("lm_head.weight", "head/table"),
  ]


def _queries(config: Config, attention: str) -> list[Row]:
  if config.get("q_lora_rank", None) is None:
    return dense(attention + "q_proj", "a/mixer/q_proj")
  return [
    *dense(attention + "q_a_proj", "a/mixer/q_down"),
    row(attention + "q_a_layernorm.weight", "a/mixer/q_norm/scale"),
    *dense(attention + "q_b_proj", "a/mixer/q_up"),
  ]


def _experts(config: Config) -> int:
  return config.get("num_experts", config.get("num_local_experts", 256))


def _delta(config: Config) -> tuple[int, int, int]:
  """Heads, size of a head and taps of delta attention."""
  given = config.get("linear_attn_config", {})
  names = {"num_heads": ("linear_num_heads", 32), "head_dim": ("linear_head_dim", 128)}
  names |= {"short_conv_kernel_size": ("linear_conv_kernel_dim", 4)}
  heads, size, taps = (given.get(older) or config.get(*newer) for older, newer in names.items())
  return heads, size, taps


def _pattern(config: Config) -> str:
  depth, given = config.get("num_hidden_layers"), config.get("linear_attn_config", {})
  kinds = config.get("layer_types", [])
  if not kinds and given:
    kinds = [list(KINDS)[i + 1 in given["full_attn_layers"]] for i in range(depth)]
  kinds = kinds or [list(KINDS)[bool(i) and i % 4 == 0] for i in range(depth)]
  first = config.get("first_k_dense_replace", 1)
  channel = config.get("mlp_layer_types", ["dense" if i < first else "sparse" for i in range(depth)])
  return "".join(KINDS[kind] + {"dense": "-", "sparse": "e"}[other] for kind, other in zip(kinds, channel, strict=True))
