"""Qwen3.5's language models (2026) as transformers saves them, dense and with experts: Qwen3-Next with plain rows.

The parts of the delta net's input map are tensors of their own. The weights of the chosen experts are always divided by
their sum. Of positions in images and videos text has one.
"""

from typing import Any

from interop.config import Config
from interop.families import qwen3_next
from interop.families.qwen3_next import IGNORED, LETTERS, around, delta_sizes
from interop.rows import Row, dense, row, split, turn

__all__ = ["IGNORED", "LETTERS", "SKIPPED", "rows", "sections"]

SKIPPED = (r"mtp\..*", r"model\.visual\..*")


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  return qwen3_next.sections(config)


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  heads, values, size, value_size = delta_sizes(config)
  net, keys = "model.layers.{i}.linear_attn.", heads * size
  qkv = [f"d/mixer/qkv/{name}_proj/kernel" for name in "qkv"]
  return [
    row(net + "in_proj_qkv.weight", qkv, split(keys, keys, values * value_size), turn),
    *dense(net + "in_proj_z", "d/mixer/g_proj"),
    *dense(net + "in_proj_b", "d/mixer/b_proj"),
    *dense(net + "in_proj_a", "d/mixer/a_proj"),
    *around(config, "model."),
    *qwen3_next.experts(config, "model.layers.{i}.mlp."),
  ]
