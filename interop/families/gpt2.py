"""GPT-2 (Radford et al. 2019) as transformers saves it, and as it was released, without a prefix of the names.

Its matrices are (in, out), as ours are. The table of the embedding is always that of the logits.
"""

from typing import Any

from hybrids.recipes import transformer
from interop.config import Config
from interop.rows import Row, layer_norm, row, split

LETTERS = 2
# how transformers runs it, and heads for other tasks
IGNORED = (
  "attn_pdrop n_ctx reorder_and_upcast_attn scale_attn_weights summary_activation summary_first_dropout "
  "summary_proj_to_labels summary_type summary_use_proj"
)
SKIPPED = (r"transformer\.h\.\d+\.attn\.(bias|masked_bias)", r"lm_head\.weight")
RENAMED = ((r"^(?!transformer\.|lm_head\.)", "transformer."),)


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  for key, value in (("tie_word_embeddings", True), ("scale_attn_by_inverse_layer_idx", False)):
    config.expect(key, value)
  config.expect("activation_function", "gelu_new", "gelu_pytorch_tanh")
  width = config.get("n_embd", 768)
  return transformer.gpt2(
    width=width,
    depth=config.get("n_layer", 12),
    heads=config.get("n_head", 12),
    positions=config.get("n_positions", 1024),
    inner=config.get("n_inner", 4 * width),
    norm_eps=config.get("layer_norm_epsilon", 1e-5),
  )


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer, width = "transformer.h.{i}.", config.get("n_embd", 768)
  qkv = ("a/mixer/q_proj", "a/mixer/k_proj", "a/mixer/v_proj")
  parts = split(width, width, width, axis=-1)

  def linear(theirs: str, ours: str) -> list[Row]:
    return [row(f"{layer}{theirs}.weight", f"{ours}/kernel"), row(f"{layer}{theirs}.bias", f"{ours}/bias")]

  return [
    row("transformer.wte.weight", "embed/embedding"),
    row("transformer.wpe.weight", "embed/positions"),
    *layer_norm(layer + "ln_1", "a/norm"),
    row(layer + "attn.c_attn.weight", [f"{path}/kernel" for path in qkv], parts),
    row(layer + "attn.c_attn.bias", [f"{path}/bias" for path in qkv], parts),
    *linear("attn.c_proj", "a/mixer/out_proj"),
    *layer_norm(layer + "ln_2", "-/norm"),
    *linear("mlp.c_fc", "-/mixer/in_proj"),
    *linear("mlp.c_proj", "-/mixer/out_proj"),
    *layer_norm("transformer.ln_f", "body/final_norm"),
  ]
