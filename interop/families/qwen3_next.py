"""Qwen3-Next (2025) as transformers saves it: gated delta nets, gated attention, experts with a gated shared one.

Norms store their distance from 1, but for the one inside of the delta net. Rows of the delta net's input map stand
together for each head of keys, those of attention's queries and gates for each head.
"""

from typing import Any

from hybrids.recipes import qwen3_next
from interop.config import Config
from interop.rope import rope
from interop.rows import Row, dense, depthwise, each, plus_one, row, stack, turn, unpack

LETTERS = 2
IGNORED = "max_position_embeddings use_sliding_window max_window_layers"
# prediction of several tokens, which transformers ignores
SKIPPED = (r"mtp\..*",)
KINDS = {"linear_attention": "d", "full_attention": "a"}


def sections(config: Config, **more: Any) -> dict[str, Any]:
  """Returns the model section; `more` are further fields of the experts."""
  config.expect("hidden_act", "silu")
  width = config.get("hidden_size")
  attention_heads = config.get("num_attention_heads")
  head_size = config.get("head_dim", 256)
  turns = rope(config, head_size, share=0.25)
  return qwen3_next.model(
    width=width,
    pattern=pattern(config),
    delta=delta(config),
    attention=dict(
      heads=attention_heads,
      kv_heads=config.get("num_key_value_heads", attention_heads),
      head_size=head_size,
      bias="all" if config.expect("attention_bias", False) else "none",
      **turns,
    ),
    experts=expert_fields(config, experts=8, top_k=2, **more),
    inner=config.get("intermediate_size", 4 * width),
    norm_eps=config.get("rms_norm_eps", 1e-6),
    tie=config.get("tie_word_embeddings", False),
  )


def expert_fields(config: Config, *, experts: int, top_k: int, **more: Any) -> dict[str, Any]:
  """Returns the fields of the experts; `experts` and `top_k` are the family's defaults, `more` further fields."""
  return dict(
    experts=config.get("num_experts", experts),
    top_k=config.get("num_experts_per_tok", top_k),
    inner=config.get("moe_intermediate_size", 512),
    renormalize=config.get("norm_topk_prob", True),
    shared=config.get("shared_expert_intermediate_size", 512),
    balance=config.get("router_aux_loss_coef", 0.001),
    **more,
  )


def pattern(config: Config) -> str:
  """Returns two letters for each layer."""
  depth, every = config.get("num_hidden_layers"), config.get("full_attention_interval", 4)
  kinds = config.get("layer_types", [list(KINDS)[(i + 1) % every == 0] for i in range(depth)])
  step, without = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers", [])
  sparse = [config.get("num_experts", 0) > 0 and (i + 1) % step == 0 and i not in without for i in range(depth)]
  return "".join(KINDS[kind] + "-e"[one] for kind, one in zip(kinds, sparse, strict=True))


def delta(config: Config) -> dict[str, Any]:
  """Fields of the delta net."""
  heads, values, size, value_size = delta_sizes(config)
  taps = config.get("linear_conv_kernel_dim", 4)
  return dict(heads=heads, head_size=size, value_heads=values, expand_v=value_size / size, taps=taps)


def delta_sizes(config: Config) -> tuple[int, int, int, int]:
  """Heads of keys and of values of the delta net, and the sizes of a key and of a value."""
  heads, values = config.get("linear_num_key_heads", 16), config.get("linear_num_value_heads", 32)
  return heads, values, config.get("linear_key_head_dim", 128), config.get("linear_value_head_dim", 128)


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  heads, values, size, value_size = delta_sizes(config)
  net, each_head = "model.layers.{i}.linear_attn.", values // heads
  packed = unpack(heads, size, size, each_head * value_size, each_head * value_size)
  qkvz = [f"d/mixer/{name}/kernel" for name in ("qkv/q_proj", "qkv/k_proj", "qkv/v_proj", "g_proj")]
  ba = [f"d/mixer/{name}_proj/kernel" for name in "ba"]
  return [
    row(net + "in_proj_qkvz.weight", qkvz, packed, turn),
    row(net + "in_proj_ba.weight", ba, unpack(heads, each_head, each_head), turn),
    *around(config, "model."),
    *experts(config, "model.layers.{i}.mlp."),
  ]


def around(config: Config, prefix: str) -> list[Row]:
  """Returns the rows of all but the delta net's input maps and the experts."""
  layer = prefix + "layers.{i}."
  net, attention, mlp = layer + "linear_attn.", layer + "self_attn.", layer + "mlp."
  heads, size = config.get("num_attention_heads"), config.get("head_dim", 256)
  q = ["a/mixer/q_proj/kernel", "a/mixer/gate_proj/kernel"]
  return [
    row(prefix + "embed_tokens.weight", "embed/embedding"),
    row(layer + "input_layernorm.weight", "da/norm/scale", plus_one),
    row(net + "conv1d.weight", "d/mixer/qkv/conv/kernel", depthwise),
    row(net + "A_log", "d/mixer/A_log"),
    row(net + "dt_bias", "d/mixer/dt_bias"),
    row(net + "norm.weight", "d/mixer/gated_norm/scale"),
    *dense(net + "out_proj", "d/mixer/out_proj"),
    row(attention + "q_proj.weight", q, unpack(heads, size, size), turn),
    *dense(attention + "k_proj", "a/mixer/k_proj"),
    *dense(attention + "v_proj", "a/mixer/v_proj"),
    row(attention + "q_norm.weight", "a/mixer/q_norm/scale", plus_one),
    row(attention + "k_norm.weight", "a/mixer/k_norm/scale", plus_one),
    *dense(attention + "o_proj", "a/mixer/out_proj"),
    row(layer + "post_attention_layernorm.weight", "-e/norm/scale", plus_one),
    *dense(mlp + "gate_proj", "-/mixer/gate_proj"),
    *dense(mlp + "up_proj", "-/mixer/in_proj"),
    *dense(mlp + "down_proj", "-/mixer/out_proj"),
    row(prefix + "norm.weight", "body/final_norm/scale", plus_one),
    *([] if config.get("tie_word_embeddings", False) else [row("lm_head.weight", "head/table")]),
  ]


def experts(config: Config, mlp: str) -> list[Row]:
  """Returns the rows of experts that are stored one by one."""
  numbered = lambda name: each(f"{mlp}experts.{{e}}.{name}.weight", e=config.get("num_experts", 8))
  shared = "e/mixer/shared_expert/"
  return [
    row(mlp + "gate.weight", "e/mixer/router", turn),
    row(numbered("gate_proj"), "e/mixer/gate_proj", turn, stack),
    row(numbered("up_proj"), "e/mixer/in_proj", turn, stack),
    row(numbered("down_proj"), "e/mixer/out_proj", turn, stack),
    *dense(mlp + "shared_expert.gate_proj", shared + "gate_proj"),
    *dense(mlp + "shared_expert.up_proj", shared + "in_proj"),
    *dense(mlp + "shared_expert.down_proj", shared + "out_proj"),
    *dense(mlp + "shared_expert_gate", "e/mixer/shared_gate_proj"),
  ]
