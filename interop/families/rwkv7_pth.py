"""RWKV-7 under the names of its authors' .pth files, in a model.safetensors that has no config.json beside it.

The sizes are those of the tensors; what is saved has them in a config.json of model_type rwkv7_pth.
"""

from collections.abc import Mapping
from typing import Any

from interop.config import Config
from interop.families import rwkv7
from interop.rows import Row, dense, layer_norm, reshaped, row, stack

LETTERS = 2
IGNORED = ""
# older files have the map of the first layer that is never read
SKIPPED = (r"blocks\.0\.att\.v[012]",)
EPS = 1e-5
# the sizes by the tensors and axes that have them
SIZES: dict[str, tuple[str, int]] = {
  "vocab_size": ("emb.weight", 0),
  "hidden_size": ("emb.weight", 1),
  "intermediate_size": ("blocks.0.ffn.key.weight", 0),
  "head_dim": ("blocks.0.att.r_k", 1),
  "decay_low_rank_dim": ("blocks.0.att.w1", 1),
  "a_low_rank_dim": ("blocks.0.att.a1", 1),
  "v_low_rank_dim": ("blocks.1.att.v1", 1),
  "gate_low_rank_dim": ("blocks.0.att.g1", 1),
}


def config_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
  """Returns the config.json of tensors, if they are such a model's."""
  if any(name not in shapes or len(shapes[name]) != 2 for name, _ in SIZES.values()):
    return None
  depth = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks.") and name.endswith("r_k"))
  found = {key: shapes[name][axis] for key, (name, axis) in SIZES.items()}
  return {"model_type": "rwkv7_pth", "num_hidden_layers": depth, **found}


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  ranks = {f"{ours}_rank": config.get(f"{theirs}_low_rank_dim") for ours, theirs in rwkv7.RANKS.items()}
  width, inner = config.get("hidden_size"), config.get("intermediate_size")
  return rwkv7.model(config, width=width, inner=inner, size=config.get("head_dim"), eps=EPS, ranks=ranks)


def rows(config: Config) -> list[Row]:
  """Returns the mapping table; their maps of low rank are (in, out), as ours."""
  width, size = config.get("hidden_size"), config.get("head_dim")
  vector, layer = reshaped(1, 1, width), "blocks.{i}."
  time, channel = layer + "att.", layer + "ffn."
  names = {"receptance": "r_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}

  def low_rank(theirs: str, ours: str, *, bias: bool) -> list[Row]:
    maps = [row(f"{theirs}1", f"{ours}/down/kernel"), row(f"{theirs}2", f"{ours}/up/kernel")]
    return maps + ([row(f"{theirs}0", f"{ours}/up/bias", vector)] if bias else [])

  return [
    row("emb.weight", "embed/embedding"),
    *layer_norm("blocks.0.ln0", "embed/norm_in"),
    *layer_norm(layer + "ln1", "t/norm"),
    row([f"{time}x_{name}" for name in rwkv7.MIXTURES], "t/mixer/mu", vector, stack),
    *(row(time + name, f"t/mixer/{name}", vector) for name in ("k_k", "k_a")),
    row(time + "r_k", "t/mixer/r_k", reshaped(width // size, size)),
    *(line for name, ours in names.items() for line in dense(time + name, f"t/mixer/{ours}")),
    *(line for name in "wag" for line in low_rank(f"{time}{name}", f"t/mixer/{name}_lora", bias=name != "g")),
    *rwkv7.later(config, lambda i, ours: low_rank(f"blocks.{i}.att.v", ours, bias=True)),
    *layer_norm(time + "ln_x", "t/mixer/norm"),
    *layer_norm(layer + "ln2", "c/norm"),
    row(channel + "x_k", "c/mixer/mu", reshaped(1, 1, width, ours=(1, width))),
    *dense(channel + "key", "c/mixer/k_proj"),
    *dense(channel + "value", "c/mixer/v_proj"),
    *layer_norm("ln_out", "body/final_norm"),
    row("head.weight", "head/table"),
  ]
