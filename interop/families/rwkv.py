"""RWKV-4 (Peng et al. 2023) as transformers saves it; its mixtures weigh the current token, ours the one before.

Not exact where `layer_norm_epsilon` is not 1e-5, which the last norm has in any case. transformers halves the stream
every `rescale_every` layers at inference, which the epsilon of its norms alone feels; here nothing is halved.
"""

from typing import Any

from hybrids.recipes import rwkv
from interop.config import Config
from interop.rows import Row, dense, layer_norm, one_minus, reshaped, row, stack

LETTERS = 2
IGNORED = "context_length rescale_every"
SKIPPED = ()


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  width = config.get("hidden_size")
  config.expect("tie_word_embeddings", False)
  section = rwkv.rwkv4(
    width=width,
    depth=config.get("num_hidden_layers"),
    inner=config.get("intermediate_size", 4 * width),
    norm_eps=config.get("layer_norm_epsilon", 1e-5),
  )
  section["body"]["letters"]["t"]["inner"] = config.get("attention_hidden_size", width)
  return section


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  width, block = config.get("hidden_size"), "rwkv.blocks.{i}."
  time, channel = block + "attention.", block + "feed_forward."

  def mixtures(theirs: str, names: tuple[str, ...], ours: str) -> Row:
    return row([f"{theirs}time_mix_{name}" for name in names], ours, one_minus, reshaped(1, 1, width), stack)

  return [
    row("rwkv.embeddings.weight", "embed/embedding"),
    *layer_norm("rwkv.blocks.0.pre_ln", "embed/norm_in"),
    *layer_norm(block + "ln1", "t/norm"),
    row(time + "time_decay", "t/mixer/log_w"),
    row(time + "time_first", "t/mixer/u"),
    mixtures(time, ("key", "value", "receptance"), "t/mixer/mu"),
    *dense(time + "key", "t/mixer/k_proj"),
    *dense(time + "value", "t/mixer/v_proj"),
    *dense(time + "receptance", "t/mixer/r_proj"),
    *dense(time + "output", "t/mixer/out_proj"),
    *layer_norm(block + "ln2", "c/norm"),
    mixtures(channel, ("key", "receptance"), "c/mixer/mu"),
    *dense(channel + "key", "c/mixer/k_proj"),
    *dense(channel + "receptance", "c/mixer/r_proj"),
    *dense(channel + "value", "c/mixer/v_proj"),
    *layer_norm("rwkv.ln_out", "body/final_norm"),
    row("head.weight", "head/table"),
  ]
