"""Zamba (Glorioso et al. 2024) as transformers saves it: Mamba, and one attention block shared by several layers.

The block reads the stream beside the embedding, and what it returns is added to the input of the next Mamba alone. It
is stored once, in the first layer that has it. Rows of Mamba's input map are those of u and z by turns.
"""

from typing import Any

from hybrids.recipes import zamba
from interop.config import Config
from interop.parts import attention, gated_mlp, table
from interop.rows import Row, dense, depthwise_conv, join, reshaped, row, turn, unpack

# initial values, and how transformers runs it
IGNORED = (
  "attention_hidden_size attn_layer_offset attn_layer_period max_position_embeddings num_logits_to_keep rope_theta "
  "time_step_floor time_step_max time_step_min use_associative_scan use_mamba_kernels"
)
SKIPPED = (r"model\.layers\.\d+\.shared_transf\..*",)


def _kinds(config: Config) -> list[bool]:
  """Returns whether each layer has the shared block."""
  every, place = config.get("attn_layer_period", 6), config.get("attn_layer_offset", 4)
  depth = config.get("num_hidden_layers")
  default = ["mamba", "mamba", "hybrid"] + ["hybrid" if i % every == place else "mamba" for i in range(depth - 3)]
  return [kind == "hybrid" for kind in config.get("layers_block_type", default)]


def numbers(config: Config) -> list[int]:
  """Returns their layer of each of our letters."""
  return [i for i, shares in enumerate(_kinds(config)) for _ in range(3 if shares else 1)]


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  config.expect("hidden_mamba_act", "silu")
  config.expect("hidden_act", "gelu")
  width, heads, ssm_heads = config.get("hidden_size"), config.get("num_attention_heads"), config.get("n_mamba_heads", 2)
  return zamba.zamba(
    width=width,
    depth=config.get("num_hidden_layers"),
    shared=[layer for layer, shares in enumerate(_kinds(config)) if shares],
    heads=heads,
    inner=config.get("intermediate_size"),
    ssm=dict(
      state=config.get("mamba_d_state", 16),
      expand=config.get("mamba_expand", 2),
      taps=config.get("mamba_d_conv", 4),
      dt_rank=_rank(config),
      groups=ssm_heads,
      heads=ssm_heads,
      bias=config.get("mamba_proj_bias", False),
      conv_bias=config.get("mamba_conv_bias", True),
    ),
    softmax=dict(
      kv_heads=config.get("num_key_value_heads", heads),
      head_size=config.get("attention_head_dim", 2 * width // heads),
    ),
    norm_eps=config.get("rms_norm_eps", 1e-5),
    tie=config.get("tie_word_embeddings", True),
  )


def _rank(config: Config) -> int:
  rank = config.get("mamba_dt_rank", "auto")
  return -(-config.get("hidden_size") // 16) if rank == "auto" else rank


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer, kinds = "model.layers.{i}.", _kinds(config)
  shared = f"model.layers.{kinds.index(True) if True in kinds else 0}.shared_transf."
  block = [
    row(shared + "input_layernorm.weight", "body/s/mixer/norm/scale"),
    *attention(shared + "self_attn", "body/s/mixer/inner"),
    row(shared + "pre_ff_layernorm.weight", "body/f/norm/scale"),
    *gated_mlp(shared + "feed_forward", "body/f/mixer"),
  ]
  return [
    row("model.embed_tokens.weight", "embed/embedding"),
    *_mamba(config, layer, "m"),
    *_mamba(config, layer + "mamba_decoder.", "g"),
    *dense(layer + "linear", "g/fed_proj"),
    *(block if True in kinds else []),
    row("model.final_layernorm.weight", "body/final_norm/scale"),
    *table(config, tie=True),
  ]


def _mamba(config: Config, theirs: str, letter: str) -> list[Row]:
  """Returns the rows of a Mamba layer and its norm."""
  heads, states, rank = config.get("n_mamba_heads", 2), config.get("mamba_d_state", 16), _rank(config)
  inner, bias = config.get("mamba_expand", 2) * config.get("hidden_size"), config.get("mamba_proj_bias", False)
  mamba, ours, size = theirs + "mamba.", f"{letter}/mixer/", inner // heads
  turns = (unpack(inner, 1, 1), join(inner, inner))
  # one head's maps have no axis over heads
  maps = lambda *shape: [] if heads > 1 else [reshaped(1, *shape, ours=shape)]
  return [
    row(theirs + "input_layernorm.weight", f"{letter}/norm/scale"),
    *dense(mamba + "in_proj", ours + "in_proj", *turns, bias=bias),
    *depthwise_conv(mamba + "conv1d", ours + "conv", bias=config.get("mamba_conv_bias", True)),
    row(mamba + "x_proj_weight", ours + "x_proj/kernel", *maps(rank + 2 * states, size), turn),
    row(mamba + "dt_proj_weight", ours + "dt_proj/kernel", *maps(size, rank), turn),
    row(mamba + "dt_proj_bias", ours + "dt_proj/bias", reshaped(heads, size)),
    row(mamba + "A_log", ours + "A_log", reshaped(heads, size, states, ours=(inner, states))),
    row(mamba + "D", ours + "D", reshaped(heads, size)),
    *dense(mamba + "out_proj", ours + "out_proj", bias=bias),
  ]
