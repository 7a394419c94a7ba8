"""Mamba (Gu & Dao 2023) as transformers saves it. The discretisation is Euler's, as ours by default."""

from interop.config import Config
from interop.rows import Row, depthwise, row, turn

LETTERS = 1
# initial values, and how transformers runs it; the inner width is expand times the width, and read from neither
IGNORED = (
  "rescale_prenorm_residual residual_in_fp32 time_step_floor time_step_init_scheme time_step_max time_step_min "
  "time_step_scale use_associative_scan use_mambapy"
)
SKIPPED = ()


def sections(config: Config) -> dict:
  """The model section."""
  width, expand = config.get("hidden_size"), config.get("expand", 2)
  if config.get("intermediate_size", expand * width) != expand * width:
    raise config.refuse("intermediate_size", f"{expand} times hidden_size={width}")
  config.expect("hidden_act", "silu")
  rank = config.get("time_step_rank", "auto")
  mixer = dict(
    name="mamba",
    state=config.get("state_size", 16),
    expand=expand,
    taps=config.get("conv_kernel", 4),
    dt_rank=-(-width // 16) if rank == "auto" else rank,
    bias=config.get("use_bias", False),
    conv_bias=config.get("use_conv_bias", True),
  )
  branch = dict(norm=dict(name="rms", eps=config.get("layer_norm_epsilon", 1e-5)))
  depth = config.get("num_hidden_layers")
  return dict(
    width=width,
    body=dict(name="stack", pattern="m", depth=depth, letters={"m": mixer}, branch=branch),
    head=dict(name="lm", tie=config.get("tie_word_embeddings", True)),
  )


def rows(config: Config) -> list[Row]:
  """The mapping table."""
  theirs = "backbone.layers.{i}.mixer."
  dense = [row(f"{theirs}{name}.weight", f"m/mixer/{name}/kernel", turn)
           for name in ("in_proj", "x_proj", "dt_proj", "out_proj")]  # fmt: skip
  biased = ("in_proj", "out_proj", "dt_proj") if config.get("use_bias", False) else ("dt_proj",)
  bias = [row(f"{theirs}{name}.bias", f"m/mixer/{name}/bias") for name in biased]
  conv = [row(theirs + "conv1d.weight", "m/mixer/conv/kernel", depthwise)]
  if config.get("use_conv_bias", True):
    conv.append(row(theirs + "conv1d.bias", "m/mixer/conv/bias"))
  head = [] if config.get("tie_word_embeddings", True) else [row("lm_head.weight", "head/table")]
  return [
    row("backbone.embeddings.weight", "embed/embedding"),
    row("backbone.layers.{i}.norm.weight", "m/norm/scale"),
    *(row(theirs + name, f"m/mixer/{name}") for name in ("A_log", "D")),
    *dense, *bias, *conv, *head,
    row("backbone.norm_f.weight", "body/final_norm/scale"),
  ]  # fmt: skip
