"""ZAYA1 (Zyphra 2025) as transformers saves it: compressed convolutional attention, and experts, one for each token.

transformers sets the selection bias of the expert that does nothing to -1 whatever the file says, and so does this. The
first layer's router has no scale for the vector of the layer before, which there is none of; ours has one that nothing
reads. Layouts of Zyphra's own library are other ones.
"""

from typing import Any

import numpy as np

from hybrids.recipes import zaya
from interop.config import Config
from interop.parts import stacked_experts, table
from interop.rope import rope
from interop.rows import Arrays, Row, Step, dense, depthwise_conv, elementwise, reshaped, row

LETTERS = 2
# transformers writes the intermediate_size of an argument, which nothing reads
IGNORED = "intermediate_size max_position_embeddings"
SKIPPED = (r"lm_head\.weight",)
KINDS = {"hybrid": "a", "hybrid_sliding": "w"}
POSITIONS = {
  kind: {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": 0.5}
  for kind, theta in (("hybrid", 5e6), ("hybrid_sliding", 1e4))
}
SCALES = (
  ("hidden_states_scale", "output_scale"),
  ("hidden_states_bias", "output_bias"),
  ("residual_scale", "skip_scale"),
  ("residual_bias", "skip_bias"),
)


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  config.expect("hidden_act", "silu")
  config.expect("attention_bias", False)
  config.expect("lm_head_bias", False)
  config.expect("num_experts_per_tok", 1)
  heads, size = _heads(config)
  positions = config.get("rope_parameters", POSITIONS)

  def turns(kind: str) -> dict[str, Any]:
    fields = rope(Config({"rope_parameters": positions[kind]}, config.where), size)
    del fields["position"]
    return fields

  kinds = config.get("layer_types", ["hybrid"] * config.get("num_hidden_layers"))
  # written even where no layer has a window
  window = {"window": config.get("sliding_window", None)}
  if "hybrid_sliding" in kinds:
    window |= turns("hybrid_sliding")
  return zaya.model(
    width=config.get("hidden_size"),
    pattern="".join(KINDS[kind] for kind in kinds),
    attention=dict(
      heads=heads,
      kv_heads=config.get("num_key_value_heads", 2),
      head_size=size,
      taps=config.get("cca_time0", 2),
      head_taps=config.get("cca_time1", 2),
      **(turns("hybrid") if "hybrid" in kinds else {}),
    ),
    window=window,
    experts=dict(
      experts=config.get("num_experts", 16),
      inner=config.get("moe_intermediate_size", 2048),
      router_size=config.get("router_hidden_size", 256),
    ),
    norm_eps=config.get("rms_norm_eps", 1e-5),
    tie=config.get("tie_word_embeddings", True),
  )


def _heads(config: Config) -> tuple[int, int]:
  """Returns the number of heads, and the size of one."""
  return config.get("num_attention_heads", 8), config.get("head_dim", 128)


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer, (heads, size) = "model.layers.{i}.", _heads(config)
  qkv = layer + "self_attn.qkv_proj."
  by_head = heads + config.get("num_key_value_heads", 2), size
  return [
    row("model.embed_tokens.weight", "embed/embedding"),
    row("model.input_hidden_states_scale", "embed/channel_scale"),
    row("model.input_hidden_states_bias", "embed/channel_bias"),
    row(layer + "input_layernorm.weight", "aw/norm/scale"),
    *(row(f"{layer}post_attention_residual_scale.{theirs}", f"aw/{ours}") for theirs, ours in SCALES),
    *dense(qkv + "q_proj", "aw/mixer/q_proj"),
    *dense(qkv + "k_proj", "aw/mixer/k_proj"),
    *dense(qkv + "v_proj_current", "aw/mixer/v_proj"),
    *dense(qkv + "v_proj_delayed", "aw/mixer/v_proj_before"),
    *depthwise_conv(qkv + "conv_qk_depthwise", "aw/mixer/conv", bias=True),
    row(qkv + "conv_qk_grouped.weight", "aw/mixer/head_conv", _head_conv(*by_head)),
    row(qkv + "conv_qk_grouped.bias", "aw/mixer/head_bias", reshaped(-1, ours=by_head)),
    row(layer + "self_attn.qk_norm.temp", "aw/mixer/temperature"),
    *dense(layer + "self_attn.o_proj", "aw/mixer/out_proj"),
    row(layer + "post_attention_layernorm.weight", "e/norm/scale"),
    *(row(f"{layer}post_mlp_residual_scale.{theirs}", f"e/{ours}") for theirs, ours in SCALES),
    *_router(layer + "mlp.gate.", len(config.get("layer_types", [])) or config.get("num_hidden_layers"), config),
    *stacked_experts(layer + "mlp.experts", "e/mixer", config.get("moe_intermediate_size", 2048)),
    row("model.norm.weight", "body/final_norm/scale"),
    *table(config, tie=True),
  ]


def _router(gate: str, depth: int, config: Config) -> list[Row]:
  ours, perceptron = "e/mixer/router_mlp/", gate + "router_mlp."
  carry = lambda i: f"body/{ours.replace('/', f'/{i}/', 1)}carry_scale"
  unread = Step(lambda _: [np.ones(config.get("router_hidden_size", 256), np.float32)], lambda _: [])
  return [
    *dense(gate + "down_proj", ours + "down_proj", bias=True),
    Row((), (carry(0),), (unread,)),
    *(row(f"{gate.replace('{i}', str(i))}router_states_scale", carry(i)) for i in range(1, depth)),
    row(perceptron + "norm.weight", ours + "norm/scale"),
    *dense(perceptron + "fc1", ours + "first", bias=True),
    *dense(perceptron + "fc2", ours + "second", bias=True),
    *dense(perceptron + "out_proj", ours + "out_proj"),
    row(gate + "balancing_biases", "buffers:e/mixer/selection_bias", elementwise(_skip_less, _skip_less)),
  ]


def _skip_less(bias: np.ndarray) -> np.ndarray:
  """Returns the biases with -1 for the expert that does nothing."""
  return np.concatenate([bias[:-1], np.full_like(bias[-1:], -1)])


def _head_conv(heads: int, size: int) -> Step:
  """Theirs is (heads · out, in, taps), ours (taps, heads, in, out)."""

  def back(arrays: Arrays) -> Arrays:
    return [arrays[0].transpose(1, 3, 2, 0).reshape(heads * size, size, -1)]

  return Step(lambda arrays: [arrays[0].reshape(heads, size, size, -1).transpose(3, 0, 2, 1)], back)
