"""xLSTM 7B (Beck et al. 2025) as transformers saves it: mLSTM and a gated MLP by turns.

The width of the MLP is rounded up to a multiple, that of queries is cut to an integer. transformers ignores
`tie_word_embeddings`.
"""

import math
from typing import Any

import numpy as np

from hybrids.recipes import xlstm
from interop.config import Config
from interop.rows import Row, constant, dense, row

LETTERS = 2
# how transformers runs it, in which precision its kernels work, and what it returns
IGNORED = (
  "autocast_kernel_dtype chunk_size chunkwise_kernel inference_state_dtype max_inference_chunksize mode "
  "norm_reduction_force_float32 num_blocks return_last_states sequence_kernel step_kernel weight_mode embedding_dim "
  "mlstm_round_up_to_multiple_of tie_word_embeddings"
)
SKIPPED = ()


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  width, heads = config.get("hidden_size"), config.get("num_heads", 8)
  if config.get("v_dim_factor", 1.0) != 1:
    raise config.refuse("v_dim_factor", "1.0")
  config.expect("add_out_norm", True)
  return xlstm.large(
    width=width,
    depth=config.get("num_hidden_layers", config.get("num_blocks", 32)),
    heads=heads,
    inner=_rounded(config.get("ffn_proj_factor", 2.667) * width, config.get("ffn_round_up_to_multiple_of", 64)),
    qk_factor=int(config.get("qk_dim_factor", 0.5) * width) / width,
    soft_cap=config.get("gate_soft_cap", 15.0),
    softcap=config.get("output_logit_soft_cap", 30.0),
    eps=config.get("eps", 1e-6),
    norm_eps=config.get("norm_eps", 1e-6),
    bias=config.get("use_bias", False),
    tie=False,
  )


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  bias, width, block = config.get("use_bias", False), config.get("hidden_size"), "backbone.blocks.{i}."
  cell, mlp = block + "mlstm_layer.", block + "ffn."

  def norm(theirs: str, ours: str) -> list[Row]:
    return [row(f"{theirs}.weight", f"{ours}/scale"), *([row(f"{theirs}.bias", f"{ours}/bias")] if bias else [])]

  # their last norm has no bias
  last = [constant("body/final_norm/bias", np.zeros(width, np.float32))] if bias else []
  return [
    row("backbone.embeddings.weight", "embed/embedding"),
    *norm(block + "norm_mlstm", "m/norm"),
    *dense(cell + "q", "m/mixer/q_proj", bias=bias),
    *dense(cell + "k", "m/mixer/k_proj", bias=bias),
    *dense(cell + "v", "m/mixer/v_proj", bias=bias),
    *dense(cell + "igate_preact", "m/mixer/i_proj", bias=True),
    *dense(cell + "fgate_preact", "m/mixer/f_proj", bias=True),
    *dense(cell + "ogate_preact", "m/mixer/gate_proj", bias=bias),
    *norm(cell + "multihead_norm", "m/mixer/norm"),
    *dense(cell + "out_proj", "m/mixer/out_proj", bias=bias),
    *norm(block + "norm_ffn", "-/norm"),
    *dense(mlp + "proj_up_gate", "-/mixer/gate_proj", bias=bias),
    *dense(mlp + "proj_up", "-/mixer/in_proj", bias=bias),
    *dense(mlp + "proj_down", "-/mixer/out_proj", bias=bias),
    row("backbone.out_norm.weight", "body/final_norm/scale"),
    *last,
    row("lm_head.weight", "head/table"),
  ]


def _rounded(size: float, multiple: int) -> int:
  return math.ceil(size / multiple) * multiple
