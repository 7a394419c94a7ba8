"""MiniMax-01 (2025) as transformers saves it: lightning and softmax attention, each followed by experts.

A branch returns α n + β f(n) for its normed input n. The rates by which heads forget are stored, as are three tables
made of them. transformers turns all entries of a head, whatever `partial_rotary_factor` is.
"""

from typing import Any

import numpy as np

from hybrids.recipes import minimax
from interop.config import Config
from interop.rope import rope
from interop.rows import Arrays, Row, Step, dense, each, row, stack, turn, unpack

LETTERS = 2
IGNORED = "max_position_embeddings"
SKIPPED = ()
KINDS = {"linear_attention": "l", "full_attention": "a"}


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  heads, size = config.get("num_attention_heads"), _size(config)
  config.expect("hidden_act", "silu")
  config.expect("sliding_window", None)
  depth = config.get("num_hidden_layers")
  kinds = config.get("layer_types", [list(KINDS)[(i + 1) % 2 == 1] for i in range(depth)])
  factors = lambda name: (float(config.get(f"{name}_alpha_factor", 1)), float(config.get(f"{name}_beta_factor", 1)))
  turns = rope(config, size, theta=1e6)
  return minimax.model(
    width=config.get("hidden_size"),
    depth=depth,
    heads=heads,
    kv_heads=config.get("num_key_value_heads", heads),
    inner=config.get("intermediate_size"),
    experts=config.get("num_local_experts", 8),
    top_k=config.get("num_experts_per_tok", 2),
    head_size=size,
    pattern="".join(KINDS[kind] for kind in kinds),
    linear=factors("linear_attn"),
    full=factors("full_attn"),
    channel=factors("mlp"),
    rotary=1.0,
    theta=turns["theta"],
    scaling=turns.get("scaling"),
    balance=config.get("router_aux_loss_coef", 0.001),
    norm_eps=config.get("rms_norm_eps", 1e-5),
    tie=config.get("tie_word_embeddings", False),
  )


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer, size, heads = "model.layers.{i}.", _size(config), config.get("num_attention_heads")
  attention, experts = layer + "self_attn.", layer + "block_sparse_moe."
  count = config.get("num_local_experts", 8)
  kernels = [f"l/mixer/{name}_proj/kernel" for name in "qkv"]
  decays = [attention + name for name in ("slope_rate", "query_decay", "key_decay", "diagonal_decay")]
  return [
    row("model.embed_tokens.weight", "embed/embedding"),
    row(layer + "input_layernorm.weight", "la/norm/scale"),
    row(attention + "qkv_proj.weight", kernels, unpack(heads, size, size, size), turn),
    row(decays, "buffers:l/mixer/rate", _decays(config.get("block_size", 256))),
    *dense(attention + "output_gate", "l/mixer/g_proj"),
    row(attention + "norm.weight", "l/mixer/norm/scale"),
    *dense(attention + "out_proj", "l/mixer/out_proj"),
    *dense(attention + "q_proj", "a/mixer/q_proj"),
    *dense(attention + "k_proj", "a/mixer/k_proj"),
    *dense(attention + "v_proj", "a/mixer/v_proj"),
    *dense(attention + "o_proj", "a/mixer/out_proj"),
    row(layer + "post_attention_layernorm.weight", "e/norm/scale"),
    row(experts + "gate.weight", "e/mixer/router", turn),
    row(each(experts + "experts.{e}.w1.weight", e=count), "e/mixer/gate_proj", turn, stack),
    row(each(experts + "experts.{e}.w3.weight", e=count), "e/mixer/in_proj", turn, stack),
    row(each(experts + "experts.{e}.w2.weight", e=count), "e/mixer/out_proj", turn, stack),
    row("model.norm.weight", "body/final_norm/scale"),
    *([] if config.get("tie_word_embeddings", False) else [row("lm_head.weight", "head/table")]),
  ]


def _size(config: Config) -> int:
  return config.get("head_dim", config.get("hidden_size") // config.get("num_attention_heads"))


def _decays(block: int) -> Step:
  """Returns the rates alone of the four tables; and all four of the rates, for blocks of so many tokens."""
  place = np.arange(1, block + 1, dtype=np.float32)

  def back(arrays: Arrays) -> Arrays:
    rate = arrays[0][:, None, None]
    between = place[:, None] - place
    diagonal = np.where(between >= 0, np.exp(-rate * np.maximum(between, 0)), 0).astype(np.float32)
    return [rate, np.exp(-rate * place[:, None]), np.exp(-rate * (block - place[:, None])), diagonal[None]]

  return Step(lambda arrays: [arrays[0].reshape(-1)], back)
