"""Ling 3's hybrid (Ant Group 2026) as transformers saves it: delta attention, gated latent attention, grouped experts.

Decays of delta attention are bounded below, and its decay and gate are made by full maps; latent attention has a gate
for each head and interleaved rotations. transformers ignores `tie_word_embeddings` and layers beyond the last one,
which predict several tokens. The norms inside of latent attention have an epsilon of 1e-6.

YaRN multiplies the entries that turn by one factor, which goes into the rows that make them, and scores by another.
"""

import math
from typing import Any

import numpy as np

from hybrids.recipes import bailing
from interop.config import Config
from interop.parts import experts, gated_mlp
from interop.rope import rope
from interop.rows import Row, dense, depthwise, join, row, split, times, turn, unpack

LETTERS = 2
IGNORED = (
  "first_k_dense_replace head_dim layer_group_size linear_conv_kernel_dim linear_num_heads max_position_embeddings "
  "model_max_length mtp_loss_scaling_factor num_key_value_heads num_nextn_predict_layers num_mtp_layers qk_head_dim "
  "tie_word_embeddings"
)
SKIPPED = (r"model\.mtp\..*",)
KINDS = {"linear_attention": "k", "full_attention": "a"}


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  config.expect("hidden_act", "silu")
  config.expect("attention_bias", False)
  config.expect("kda_safe_gate", True)
  heads, size = config.get("num_attention_heads"), config.get("qk_rope_head_dim")
  inner, (turns, _) = config.get("moe_intermediate_size", 768), _turns(config)
  return bailing.model(
    width=config.get("hidden_size"),
    pattern=_pattern(config),
    delta=dict(heads=heads, head_size=_size(config), taps=config.get("short_conv_kernel_size", 4)),
    latent=dict(
      heads=heads,
      rank=config.get("kv_lora_rank", 512),
      q_rank=config.get("q_lora_rank", None),
      head_size=config.get("qk_nope_head_dim", 128),
      rope_size=size,
      value_size=config.get("v_head_dim", 128),
      layout="interleaved",
      norm_eps=1e-6,
      **turns,
    ),
    experts=dict(
      experts=config.get("num_experts", 512),
      top_k=config.get("num_experts_per_token", 8),
      inner=inner,
      groups=config.get("num_expert_group", 8),
      top_groups=config.get("topk_group", 4),
      renormalize=config.get("moe_renormalize", True),
      scale=float(config.get("routed_scaling_factor", 2.5)),
      shared=config.get("num_shared_experts", 1) * inner,
    ),
    inner=config.get("intermediate_size"),
    lower_bound=float(config.get("kda_lower_bound", -5.0)),
    norm_eps=config.get("rms_norm_eps", 1e-6),
  )


def _turns(config: Config) -> tuple[dict[str, Any], float]:
  """Returns the fields of positions, and the factor of the entries that turn."""
  turns = rope(config, config.get("qk_rope_head_dim"), theta=6e6)
  del turns["rotary"]
  scaling = dict(turns.get("scaling", {}))
  if scaling.get("rule") not in ("yarn", "longrope"):
    return turns, 1.0
  if scaling["rule"] == "longrope":
    raise config.refuse("rope_parameters", "of another rule: 'longrope' is not known in latent attention")
  given = {**config.get("rope_scaling", {}), **config.get("rope_parameters", {})}
  grow = lambda scale: 0.1 * scale * math.log(max(scaling["factor"], 1)) + 1
  whole = scaling.pop("mscale_all_dim", 0.0)
  entries = scaling.pop("amplitude", grow(scaling.pop("mscale", 1.0)) / grow(whole))
  # transformers reads this one even where the other is missing
  scaling["amplitude"] = grow(given.get("mscale_all_dim") or 0.0)
  return turns | {"scaling": scaling}, entries


def _size(config: Config) -> int:
  """Returns the size of a head of delta attention, which released configs call `head_dim`."""
  return config.get("linear_head_dim", config.get("head_dim", 128))


def _pattern(config: Config) -> str:
  depth, every = config.get("num_hidden_layers"), config.get("layer_group_size", 6)
  kinds = config.get("layer_types", [list(KINDS)[(i + 1) % every == 0] for i in range(depth)])
  first = config.get("first_k_dense_replace", 2)
  channel = config.get("mlp_layer_types", ["dense" if i < first else "sparse" for i in range(depth)])
  return "".join(KINDS[kind] + {"dense": "-", "sparse": "e"}[other] for kind, other in zip(kinds, channel, strict=True))


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer, heads = "model.layers.{i}.", config.get("num_attention_heads")
  attention, mlp = layer + "attention.", layer + "mlp"
  channels = heads * _size(config)
  latent = split(config.get("kv_lora_rank", 512), config.get("qk_rope_head_dim"))
  up = unpack(heads, config.get("qk_nope_head_dim", 128), config.get("v_head_dim", 128))
  convs = [f"{attention}{name}_conv1d.weight" for name in "qkv"]
  turning, (_, factor) = config.get("qk_rope_head_dim"), _turns(config)
  grown = lambda still, heads: times(np.tile([1.0] * still + [factor] * turning, heads))
  of_queries = grown(config.get("qk_nope_head_dim", 128), heads)
  queries = dense(attention + "q_proj", "a/mixer/q_proj", of_queries)
  if config.get("q_lora_rank", None) is not None:
    queries = [
      *dense(attention + "q_a_proj", "a/mixer/q_down"),
      row(attention + "q_a_layernorm.weight", "a/mixer/q_norm/scale"),
      *dense(attention + "q_b_proj", "a/mixer/q_up", of_queries),
    ]
  kv, of_keys = attention + "kv_a_proj_with_mqa.weight", grown(config.get("kv_lora_rank", 512), 1)
  return [
    row("model.word_embeddings.weight", "embed/embedding"),
    row(layer + "input_layernorm.weight", "ka/norm/scale"),
    *(line for name in "qkv" for line in dense(f"{attention}{name}_proj", f"k/mixer/qkv/{name}_proj")),
    row(convs, "k/mixer/qkv/conv/kernel", depthwise, join(channels, channels, channels, axis=-1)),
    *dense(attention + "f_proj", "k/mixer/a_proj"),
    row(attention + "A_log", "k/mixer/A_log"),
    row(attention + "dt_bias", "k/mixer/dt_bias"),
    *dense(attention + "b_proj", "k/mixer/b_proj"),
    *dense(attention + "g_proj", "k/mixer/g_proj"),
    row(attention + "o_norm.weight", "k/mixer/gated_norm/scale"),
    *dense(attention + "dense", "ka/mixer/out_proj"),
    *queries,
    row(kv, ["a/mixer/c_proj/kernel", "a/mixer/r_proj/kernel"], of_keys, latent, turn),
    row(attention + "kv_a_layernorm.weight", "a/mixer/c_norm/scale"),
    row(attention + "kv_b_proj.weight", ["a/mixer/k_up", "a/mixer/v_up"], up, turn),
    *dense(attention + "g_proj", "a/mixer/gate_proj"),
    row(layer + "post_attention_layernorm.weight", "-e/norm/scale"),
    *gated_mlp(mlp, "-/mixer"),
    *experts(mlp, "e/mixer", config.get("num_experts", 512)),
    row(mlp + ".gate.expert_bias", "buffers:e/mixer/selection_bias"),
    *gated_mlp(mlp + ".shared_experts", "e/mixer/shared_expert"),
    row("model.norm.weight", "body/final_norm/scale"),
    row("lm_head.weight", "head/table"),
  ]
