"""Falcon-H1 (2025) as transformers saves it: Mamba-2 beside attention behind one norm, then a gated MLP.

Of its fixed factors those of keys, of the MLP's gate and of the parts of Mamba-2's input are in the weights here.
"""

from typing import Any

import numpy as np

from hybrids.recipes import falcon_h1
from interop.config import Config
from interop.parts import attention_fields, mamba2_fields, table
from interop.rope import rope
from interop.rows import Row, dense, depthwise_conv, row, times

LETTERS = 2
IGNORED = (
  "add_bos_token attn_layer_indices expansion_factor mamba_chunk_size mamba_expand mamba_use_mlp "
  "max_position_embeddings mlp_expansion_factor num_logits_to_keep"
)
SKIPPED = ()


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  config.expect("hidden_act", "silu")
  factor = lambda key: float(config.get(f"{key}_multiplier", 1.0))
  width, heads, eps = config.get("hidden_size"), config.get("num_attention_heads"), config.get("rms_norm_eps", 1e-5)
  size = config.get("head_dim", width // heads)
  bias = config.get("mamba_proj_bias", False)
  if config.get("projectors_bias", False) != bias:
    raise config.refuse("projectors_bias", f"that of mamba_proj_bias, {bias}")
  before = config.get("mamba_norm_before_gate", True)
  norm = ("norm_first" if before else "gate_first") if config.get("mamba_rms_norm", False) else "none"
  inner = config.get("mamba_d_ssm", config.get("mamba_expand", 2) * width)
  return falcon_h1.model(
    width=width,
    depth=config.get("num_hidden_layers"),
    inner=config.get("intermediate_size"),
    heads=heads,
    kv_heads=config.get("num_key_value_heads", heads),
    head_size=size,
    ssm=dict(mamba2_fields(config, inner=inner, eps=eps), norm=norm),
    softmax=attention_fields(config, **rope(config, size)),
    mlp_bias=config.get("mlp_bias", False),
    embed_scale=factor("embedding"),
    head_scale=factor("lm_head"),
    attention_scales=(factor("attention_in"), factor("attention_out")),
    ssm_scales=(factor("ssm_in"), factor("ssm_out")),
    mlp_scale=float(config.get("mlp_multipliers", [1.0, 1.0])[1]),
    norm_eps=eps,
    tie=config.get("tie_word_embeddings", False),
  )


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer, ssm, attention = "model.layers.{i}.", "p/mixer/branch_0/mixer/", "p/mixer/branch_1/mixer/"
  bias, mlp_bias, ssm_bias = (config.get(f"{name}_bias", False) for name in ("attention", "mlp", "mamba_proj"))
  mamba, feed = layer + "mamba.", layer + "feed_forward."
  gate = times(config.get("mlp_multipliers", [1.0, 1.0])[0])
  norm = [row(mamba + "norm.weight", ssm + "gated_norm/scale")] if config.get("mamba_rms_norm", False) else []
  return [
    row("model.embed_tokens.weight", "embed/embedding"),
    row(layer + "input_layernorm.weight", "p/norm/scale"),
    *dense(mamba + "in_proj", ssm + "in_proj", times(_parts(config)), bias=ssm_bias),
    *depthwise_conv(mamba + "conv1d", ssm + "conv", bias=config.get("mamba_conv_bias", True)),
    *(row(mamba + name, ssm + name) for name in ("dt_bias", "A_log", "D")),
    *norm,
    *dense(mamba + "out_proj", ssm + "out_proj", bias=ssm_bias),
    *dense(layer + "self_attn.q_proj", attention + "q_proj", bias=bias),
    *dense(layer + "self_attn.k_proj", attention + "k_proj", times(config.get("key_multiplier", 1.0)), bias=bias),
    *dense(layer + "self_attn.v_proj", attention + "v_proj", bias=bias),
    *dense(layer + "self_attn.o_proj", attention + "out_proj", bias=bias),
    row(layer + "pre_ff_layernorm.weight", "-/norm/scale"),
    *dense(feed + "gate_proj", "-/mixer/gate_proj", gate, bias=mlp_bias),
    *dense(feed + "up_proj", "-/mixer/in_proj", bias=mlp_bias),
    *dense(feed + "down_proj", "-/mixer/out_proj", bias=mlp_bias),
    row("model.final_layernorm.weight", "body/final_norm/scale"),
    *table(config, tie=False),
  ]


def _parts(config: Config) -> np.ndarray:
  """Returns the factor of each output of Mamba-2's input map: of z, u, B, C and dt."""
  inner = config.get("mamba_d_ssm", config.get("mamba_expand", 2) * config.get("hidden_size"))
  states = config.get("mamba_n_groups", 1) * config.get("mamba_d_state", 256)
  sizes = (inner, inner, states, states, config.get("mamba_n_heads", 128))
  return np.repeat(np.float32(config.get("ssm_multipliers", [1.0] * 5)), sizes)
