"""RWKV-7 (Peng et al. 2025) as flash-linear-attention saves it; its first form, which has `x_x`, is not read.

The first layer has no map that mixes its values with themselves; ours is unused and left out.
"""

from typing import Any

import numpy as np

from hybrids.recipes import rwkv
from interop.config import Config
from interop.rows import Row, Step, dense, layer_norm, reshaped, row, stack, turn

LETTERS = 2
# initial values, and how their kernels run
IGNORED = "attn_mode fuse_cross_entropy fuse_linear_cross_entropy fuse_norm max_position_embeddings use_l2warp"
SKIPPED = ()
MIXTURES = "rwkvag"


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  width, size = config.get("hidden_size"), _head_size(config)
  for key, value in (("norm_first", True), ("norm_bias", True), ("hidden_act", "sqrelu")):
    config.expect(key, value)
  config.expect("tie_word_embeddings", False)
  if config.has("attn"):
    raise config.refuse("attn", "null: attention between the layers is not read")
  values = config.get("value_dim", width)
  if any(one != width for one in (values if isinstance(values, list) else [values])):
    raise config.refuse("value_dim", f"hidden_size={width} in all layers")
  inner = config.get("intermediate_size", -(-int(width * config.get("hidden_ratio", 4)) // 32) * 32)
  eps = config.get("norm_eps", 1e-5)
  ranks = {f"{ours}_rank": config.get(f"{theirs}_low_rank_dim") for ours, theirs in RANKS.items()}
  return model(config, width=width, inner=inner, size=size, eps=eps, ranks=ranks)


# our ranks by what theirs are called
RANKS = {"w": "decay", "a": "a", "v": "v", "g": "gate"}


def model(config: Config, *, width: int, inner: int, size: int, eps: float, ranks: dict[str, int]) -> dict[str, Any]:
  """Returns the model section of these sizes; the norm of heads has `size` times the epsilon of the others."""
  depth = config.get("num_hidden_layers")
  section = rwkv.rwkv7(width=width, depth=depth, inner=inner, head_size=size, norm_eps=eps, **ranks)
  section["body"]["letters"]["t"]["norm_eps"] = size * eps
  return section


def _head_size(config: Config) -> int:
  heads = config.get("num_heads", 0)
  return config.get("hidden_size") // heads if heads else config.get("head_dim", 64)


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  width, size = config.get("hidden_size"), _head_size(config)
  layer = "model.layers.{i}."
  time, channel = layer + "attn.", layer + "ffn."
  return [
    row("model.embeddings.weight", "embed/embedding"),
    *layer_norm("model.layers.0.pre_norm", "embed/norm_in"),
    *layer_norm(layer + "attn_norm", "t/norm"),
    row([f"{time}x_{name}" for name in MIXTURES], "t/mixer/mu", reshaped(1, 1, width), stack),
    *(row(time + name, f"t/mixer/{name}") for name in ("k_k", "k_a")),
    row(time + "r_k", "t/mixer/r_k", reshaped(width // size, size)),
    *(dense(f"{time}{name}_proj", f"t/mixer/{name}_proj")[0] for name in "rkv"),
    *dense(time + "o_proj", "t/mixer/out_proj"),
    *(line for name in "wag" for line in _lora(f"{time}{name}_lora", f"t/mixer/{name}_lora", bias=name != "g")),
    *later(config, lambda i, ours: _lora(f"model.layers.{i}.attn.v_lora", ours, bias=True)),
    *layer_norm(time + "g_norm", "t/mixer/norm"),
    *layer_norm(layer + "ffn_norm", "c/norm"),
    row(channel + "x_k", "c/mixer/mu", reshaped(width, ours=(1, width))),
    *dense(channel + "key", "c/mixer/k_proj"),
    *dense(channel + "value", "c/mixer/v_proj"),
    *layer_norm("model.norm", "body/final_norm"),
    row("lm_head.weight", "head/table"),
  ]


def _lora(theirs: str, ours: str, *, bias: bool) -> list[Row]:
  return [
    row(f"{theirs}.lora.0.weight", f"{ours}/down/kernel", turn),
    *dense(f"{theirs}.lora.2", f"{ours}/up", bias=bias),
  ]


def later(config: Config, lines: Any) -> list[Row]:
  """Returns the rows of the map that the first layer lacks, and zeros there, which are never read.

  Args:
    lines: from a layer and the path of our map to its rows.
  """
  width, rank = config.get("hidden_size"), config.get("v_low_rank_dim")
  shapes = {"down/kernel": (width, rank), "up/kernel": (rank, width), "up/bias": (width,)}
  unused = lambda shape: Step(lambda arrays: [np.zeros(shape, np.float32)], lambda arrays: [])
  path = lambda i: f"body/t/{i}/mixer/v_lora"
  first = [Row((), (f"{path(0)}/{name}",), (unused(shape),)) for name, shape in shapes.items()]
  return first + [line for i in range(1, config.get("num_hidden_layers")) for line in lines(i, path(i))]
