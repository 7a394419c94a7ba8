"""LLaMA (Touvron et al. 2023) as transformers saves it: attention and a gated MLP, each after a norm."""

from interop.config import Config
from interop.rope import rope
from interop.rows import Row, row, turn

LETTERS = 2
IGNORED = "max_position_embeddings"
SKIPPED = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)


def sections(config: Config) -> dict:
  """The model section."""
  width, heads = config.get("hidden_size"), config.get("num_attention_heads")
  size = config.get("head_dim", width // heads)
  attention = dict(
    name="softmax",
    heads=heads,
    kv_heads=config.get("num_key_value_heads", heads),
    head_size=size,
    bias="all" if config.get("attention_bias", False) else "none",
    **rope(config, size),
  )
  config.expect("hidden_act", "silu")
  mlp = dict(name="gated_mlp", inner=config.get("intermediate_size"), bias=config.get("mlp_bias", False))
  branch = dict(norm=dict(name="rms", eps=config.get("rms_norm_eps", 1e-6)))
  depth = 2 * config.get("num_hidden_layers")
  return dict(
    width=width,
    body=dict(name="stack", pattern="a-", depth=depth, letters={"a": attention, "-": mlp}, branch=branch),
    head=dict(name="lm", tie=config.get("tie_word_embeddings", False)),
  )


def rows(config: Config) -> list[Row]:
  """The mapping table."""
  layer = "model.layers.{i}."
  attention = [("q_proj", "q_proj"), ("k_proj", "k_proj"), ("v_proj", "v_proj"), ("o_proj", "out_proj")]
  mlp = [("gate_proj", "gate_proj"), ("up_proj", "in_proj"), ("down_proj", "out_proj")]
  table = [
    row("model.embed_tokens.weight", "embed/embedding"),
    row(layer + "input_layernorm.weight", "a/norm/scale"),
    row(layer + "post_attention_layernorm.weight", "-/norm/scale"),
    row("model.norm.weight", "body/final_norm/scale"),
  ]
  for letter, part, names, key in (("a", "self_attn", attention, "attention_bias"), ("-", "mlp", mlp, "mlp_bias")):
    for theirs, ours in names:
      table.append(row(f"{layer}{part}.{theirs}.weight", f"{letter}/mixer/{ours}/kernel", turn))
      if config.get(key, False):
        table.append(row(f"{layer}{part}.{theirs}.bias", f"{letter}/mixer/{ours}/bias"))
  return table if config.get("tie_word_embeddings", False) else [*table, row("lm_head.weight", "head/table")]
