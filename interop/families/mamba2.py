"""Mamba-2 (Dao & Gu 2024) as transformers saves it.

The norm behind the gate works on each of `n_groups` parts. `time_step_limit` clips the step; transformers' own cached
steps ignore it, its full forward and ours do not.
"""

from typing import Any

from hybrids.recipes import mamba2
from interop.config import Config
from interop.rows import Row, dense, depthwise_conv, row

LETTERS = 1
# initial values, and how transformers runs it
IGNORED = (
  "chunk_size intermediate_size norm_before_gate rescale_prenorm_residual residual_in_fp32 time_step_floor "
  "time_step_init_scheme time_step_max time_step_min time_step_rank time_step_scale"
)
SKIPPED = ()


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  width, expand = config.get("hidden_size"), config.get("expand", 2)
  heads, size = config.get("num_heads", 128), config.get("head_dim", 64)
  if heads * size != expand * width:
    raise config.refuse("num_heads", f"expand={expand} times hidden_size={width} over head_dim={size}")
  config.expect("hidden_act", "silu")
  config.expect("rms_norm", True)
  least, most = config.get("time_step_limit", [0.0, float("inf")])
  eps = config.get("layer_norm_epsilon", 1e-5)
  return mamba2.model(
    width=width,
    depth=config.get("num_hidden_layers"),
    state=config.get("state_size", 128),
    expand=expand,
    head_size=size,
    groups=config.get("n_groups", 8),
    taps=config.get("conv_kernel", 4),
    bias=config.get("use_bias", False),
    conv_bias=config.get("use_conv_bias", True),
    dt_least=least,
    dt_most=most,
    norm_eps=eps,
    tie=config.get("tie_word_embeddings", False),
  )


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  mixer, bias = "backbone.layers.{i}.mixer.", config.get("use_bias", False)
  return [
    row("backbone.embeddings.weight", "embed/embedding"),
    row("backbone.layers.{i}.norm.weight", "m/norm/scale"),
    *dense(mixer + "in_proj", "m/mixer/in_proj", bias=bias),
    *depthwise_conv(mixer + "conv1d", "m/mixer/conv", bias=config.get("use_conv_bias", True)),
    row(mixer + "dt_bias", "m/mixer/dt_bias"),
    row(mixer + "A_log", "m/mixer/A_log"),
    row(mixer + "D", "m/mixer/D"),
    row(mixer + "norm.weight", "m/mixer/gated_norm/scale"),
    *dense(mixer + "out_proj", "m/mixer/out_proj", bias=bias),
    row("backbone.norm_f.weight", "body/final_norm/scale"),
    *([] if config.get("tie_word_embeddings", False) else [row("lm_head.weight", "head/table")]),
  ]
