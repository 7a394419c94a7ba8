"""Mamba (Gu & Dao 2023) as transformers saves it. The discretisation is Euler's, as ours by default."""

from typing import Any

from hybrids.recipes import mamba
from interop.config import Config
from interop.rows import Row, dense, depthwise_conv, row

LETTERS = 1
# initial values, and how transformers runs it
# what decides initial values, how it is run, and keys of the authors' own library
IGNORED = (
  "d_inner d_model fuse_cross_entropy fuse_norm fused_add_norm n_layer pad_vocab_size_multiple rms_norm ssm_cfg "
  "rescale_prenorm_residual residual_in_fp32 time_step_floor time_step_init_scheme time_step_max time_step_min "
  "time_step_scale use_associative_scan use_falcon_mambapy use_mambapy"
)
SKIPPED = ()


def sections(config: Config, **more: Any) -> dict[str, Any]:
  """Returns the model section; `more` are further arguments of the recipe."""
  width = config.get("hidden_size")
  # that of Falcon Mamba's releases does not fit their `expand`, which nothing reads then
  inner = config.get("intermediate_size", config.get("expand", 2) * width)
  if inner % width:
    raise config.refuse("intermediate_size", f"a multiple of hidden_size={width}")
  config.expect("hidden_act", "silu")
  rank = config.get("time_step_rank", "auto")
  return mamba.model(
    width=width,
    depth=config.get("num_hidden_layers"),
    state=config.get("state_size", 16),
    expand=inner // width,
    taps=config.get("conv_kernel", 4),
    dt_rank=None if rank == "auto" else rank,
    bias=config.get("use_bias", False),
    conv_bias=config.get("use_conv_bias", True),
    norm_eps=config.get("layer_norm_epsilon", 1e-5),
    tie=config.get("tie_word_embeddings", True),
    **more,
  )


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  mixer, bias = "backbone.layers.{i}.mixer.", config.get("use_bias", False)
  return [
    row("backbone.embeddings.weight", "embed/embedding"),
    row("backbone.layers.{i}.norm.weight", "m/norm/scale"),
    *dense(mixer + "in_proj", "m/mixer/in_proj", bias=bias),
    *depthwise_conv(mixer + "conv1d", "m/mixer/conv", bias=config.get("use_conv_bias", True)),
    *dense(mixer + "x_proj", "m/mixer/x_proj"),
    *dense(mixer + "dt_proj", "m/mixer/dt_proj", bias=True),
    row(mixer + "A_log", "m/mixer/A_log"),
    row(mixer + "D", "m/mixer/D"),
    *dense(mixer + "out_proj", "m/mixer/out_proj", bias=bias),
    row("backbone.norm_f.weight", "body/final_norm/scale"),
    *([] if config.get("tie_word_embeddings", True) else [row("lm_head.weight", "head/table")]),
  ]
