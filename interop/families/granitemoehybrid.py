"""Granite 4 (IBM 2025) as transformers saves it: Mamba-2 and attention, each followed by experts and a shared one.

Without experts the shared one is an MLP alone. Fixed factors stand before the embedding, the scores, what each branch
adds and, as a divisor, the logits. The weights of the experts are a softmax over the chosen.
"""

from typing import Any

from hybrids.recipes import granite
from interop.config import Config
from interop.parts import attention, attention_fields, mamba2, mamba2_fields, table
from interop.rope import rope
from interop.rows import Row, dense, row, split, turn

LETTERS = 2
IGNORED = "layers_block_type mamba_chunk_size max_position_embeddings normalization_function init_method"
SKIPPED = ()
KINDS = {"linear_attention": "m", "mamba": "m", "full_attention": "a", "attention": "a"}


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  config.expect("hidden_act", "silu")
  config.expect("mlp_bias", False)
  width, heads, eps = config.get("hidden_size"), config.get("num_attention_heads"), config.get("rms_norm_eps", 1e-6)
  turns, depth = rope(config, width // heads), config.get("num_hidden_layers")
  kinds = config.get("layer_types", config.get("layers_block_type", ["mamba"] * depth))
  experts, shared = config.get("num_local_experts", 8), config.get("shared_intermediate_size", 1024)
  return granite.model(
    width=width,
    depth=depth,
    attention=[layer for layer, kind in enumerate(kinds) if KINDS[kind] == "a"],
    heads=heads,
    kv_heads=config.get("num_key_value_heads", heads),
    inner=config.get("intermediate_size") if experts else shared,
    experts=experts,
    top_k=config.get("num_experts_per_tok", 2),
    shared=shared,
    balance=config.get("router_aux_loss_coef", 0.001),
    ssm=mamba2_fields(config, inner=config.get("mamba_expand", 2) * width, eps=eps),
    softmax=attention_fields(
      config,
      scale=float(config.get("attention_multiplier", 1.0)),
      **(turns if config.get("position_embedding_type", "nope") == "rope" else {}),
    ),
    embed_scale=float(config.get("embedding_multiplier", 1.0)),
    head_scale=1 / config.get("logits_scaling", 1.0),
    branch_scale=float(config.get("residual_multiplier", 1.0)),
    norm_eps=eps,
    tie=config.get("tie_word_embeddings", False),
  )


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer, conv_bias = "model.layers.{i}.", config.get("mamba_conv_bias", True)
  inner, shared = config.get("intermediate_size"), config.get("shared_intermediate_size", 1024)
  mixture = layer + "block_sparse_moe."
  is_mixture = bool(config.get("num_local_experts", 8))
  into = "e/mixer/shared_expert/" if is_mixture else "e/mixer/"
  halves = [f"{into}gate_proj/kernel", f"{into}in_proj/kernel"]
  experts = [
    row(mixture + "router.layer.weight", "e/mixer/router", turn),
    row(mixture + "input_linear.weight", ["e/mixer/gate_proj", "e/mixer/in_proj"], split(inner, inner, axis=1), turn),
    row(mixture + "output_linear.weight", "e/mixer/out_proj", turn),
  ]
  return [
    row("model.embed_tokens.weight", "embed/embedding"),
    row(layer + "input_layernorm.weight", "ma/norm/scale"),
    *mamba2(layer + "mamba", "m/mixer", bias=config.get("mamba_proj_bias", False), conv_bias=conv_bias),
    *attention(layer + "self_attn", "a/mixer", bias=config.get("attention_bias", False)),
    row(layer + "post_attention_layernorm.weight", "e/norm/scale"),
    *(experts if is_mixture else []),
    row(layer + "shared_mlp.input_linear.weight", halves, split(shared, shared), turn),
    *dense(layer + "shared_mlp.output_linear", f"{into}out_proj"),
    row("model.norm.weight", "body/final_norm/scale"),
    *table(config, tie=False),
  ]
