"""Nemotron-H and Nemotron 3 (NVIDIA 2025) as transformers saves them: one mixer a layer, with ReLU² between maps.

The step is clipped to (time_step_min, ∞): transformers ignores `time_step_limit`, as it does `tie_word_embeddings`,
`mamba_proj_bias` and `attention_bias`.
"""

from typing import Any

from hybrids.recipes import nvidia_hybrid
from interop.config import Config
from interop.parts import attention, experts, mamba2
from interop.rows import Row, dense, row

LETTERS = 1
# initial values, how transformers runs it, heads that predict several tokens, and what it ignores
IGNORED = (
  "attention_bias attn_layer_period chunk_size expand hidden_act intermediate_dropout mamba_expand mamba_proj_bias "
  "mamba_ssm_cache_dtype max_position_embeddings moe_shared_expert_overlap mtp_hybrid_override_pattern "
  "mtp_layers_block_type n_shared_experts norm_eps num_logits_to_keep num_nextn_predict_layers num_query_groups "
  "partial_rotary_factor rescale_prenorm_residual residual_in_fp32 rope_theta sliding_window tie_word_embeddings "
  "time_step_floor time_step_limit time_step_max time_step_rank use_mamba_kernels"
)
SKIPPED = (r"mtp\..*",)
KINDS = {"linear_attention": "M", "mamba": "M", "full_attention": "*", "attention": "*", "mlp": "-", "moe": "E"}


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  config.expect("mamba_hidden_act", "silu")
  config.expect("mlp_hidden_act", "relu2")
  eps, size = config.get("layer_norm_epsilon", 1e-5), config.get("mamba_head_dim", 64)
  pattern, heads = _pattern(config), config.get("num_attention_heads", 32)
  if config.get("mlp_bias", False) and "E" in pattern:
    raise config.refuse("mlp_bias", "false where there are experts")
  return nvidia_hybrid.model(
    width=config.get("hidden_size"),
    pattern=pattern,
    heads=heads,
    kv_heads=config.get("num_key_value_heads", heads),
    inner=config.get("intermediate_size", 21504),
    ssm=dict(
      inner=config.get("mamba_num_heads", 128) * size,
      head_size=size,
      state=config.get("ssm_state_size", 128),
      groups=config.get("n_groups", 8),
      taps=config.get("conv_kernel", 4),
      bias=config.get("use_bias", False),
      conv_bias=config.get("use_conv_bias", True),
      dt_least=config.get("time_step_min", 1e-3),
    ),
    softmax=dict(head_size=config.get("head_dim", 128)),
    mlp_bias=config.get("mlp_bias", False),
    experts=_moe(config),
    norm_eps=eps,
  )


def _moe(config: Config) -> dict[str, Any]:
  return dict(
    experts=config.get("n_routed_experts", 8),
    top_k=config.get("num_experts_per_tok", 2),
    inner=config.get("moe_intermediate_size", 7688),
    groups=config.get("n_group", 1),
    top_groups=config.get("topk_group", 1),
    renormalize=config.get("norm_topk_prob", True),
    renormalize_eps=1e-20,
    scale=float(config.get("routed_scaling_factor", 1.0)),
    shared=config.get("moe_shared_expert_intermediate_size", 7688),
    latent=config.get("moe_latent_size", None),
    balance=0.0,
  )


def _pattern(config: Config) -> str:
  written = config.get("hybrid_override_pattern", "")
  kinds = config.get("layers_block_type", config.get("layer_types", []))
  pattern = "".join(KINDS[kind] for kind in kinds) or "".join(one for one in written if one in KINDS.values())
  if config.get("num_hidden_layers", len(pattern)) != len(pattern):
    raise config.refuse("num_hidden_layers", f"{len(pattern)}, the number of layers whose kind is given")
  return pattern


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  mixer, conv_bias = "backbone.layers.{i}.mixer", config.get("use_conv_bias", True)
  bias, into = config.get("mlp_bias", False), "E/mixer/"
  latent = [
    *dense(mixer + ".fc1_latent_proj", into + "latent_in"),
    *dense(mixer + ".fc2_latent_proj", into + "latent_out"),
  ]
  return [
    row("backbone.embeddings.weight", "embed/embedding"),
    row("backbone.layers.{i}.norm.weight", "M*-E/norm/scale"),
    *mamba2(mixer, "M/mixer", bias=config.get("use_bias", False), conv_bias=conv_bias),
    *attention(mixer, "*/mixer"),
    *dense(mixer + ".up_proj", "-/mixer/in_proj", bias=bias),
    *dense(mixer + ".down_proj", "-/mixer/out_proj", bias=bias),
    *experts(mixer, "E/mixer", config.get("n_routed_experts", 8), "up_proj down_proj"),
    row(mixer + ".gate.e_score_correction_bias", "buffers:E/mixer/selection_bias"),
    *dense(mixer + ".shared_experts.up_proj", into + "shared_expert/in_proj"),
    *dense(mixer + ".shared_experts.down_proj", into + "shared_expert/out_proj"),
    *(latent if config.has("moe_latent_size") else []),
    row("backbone.norm_f.weight", "body/final_norm/scale"),
    row("lm_head.weight", "head/table"),
  ]
