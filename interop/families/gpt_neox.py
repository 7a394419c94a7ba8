"""GPT-NeoX (Black et al. 2022), of which Pythia is one, as transformers saves it.

Queries, keys and values of each head stand together. Attention and MLP are added to the same input, each behind a norm
of its own.
"""

from typing import Any

from hybrids.recipes import transformer
from interop.config import Config
from interop.rope import rope
from interop.rows import Row, dense, layer_norm, row, turn, unpack

LETTERS = 1
IGNORED = "classifier_dropout max_position_embeddings"
SKIPPED = (r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",)
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  width, heads = config.get("hidden_size"), config.get("num_attention_heads")
  config.expect("use_parallel_residual", True)
  theta, share = config.get("rotary_emb_base", 1e4), config.get("rotary_pct", 0.25)
  turns = rope(config, width // heads, theta=theta, share=share)
  del turns["position"]
  return transformer.gpt_neox(
    width=width,
    depth=config.get("num_hidden_layers"),
    heads=heads,
    inner=config.get("intermediate_size"),
    activation=ACTIVATIONS[config.expect("hidden_act", *ACTIVATIONS)],
    bias="all" if config.get("attention_bias", True) else "none",
    norm_eps=config.get("layer_norm_eps", 1e-5),
    tie=config.get("tie_word_embeddings", False),
    **turns,
  )


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer, heads = "gpt_neox.layers.{i}.", config.get("num_attention_heads")
  size = config.get("hidden_size") // heads
  attention, mlp = "p/mixer/branch_0", "p/mixer/branch_1"
  packed = unpack(heads, size, size, size)
  qkv, bias = [f"{attention}/mixer/{name}_proj" for name in "qkv"], config.get("attention_bias", True)
  biases = row(layer + "attention.query_key_value.bias", [f"{path}/bias" for path in qkv], packed)
  return [
    row("gpt_neox.embed_in.weight", "embed/embedding"),
    *layer_norm(layer + "input_layernorm", f"{attention}/norm"),
    row(layer + "attention.query_key_value.weight", [f"{path}/kernel" for path in qkv], packed, turn),
    *([biases] if bias else []),
    *dense(layer + "attention.dense", f"{attention}/mixer/out_proj", bias=bias),
    *layer_norm(layer + "post_attention_layernorm", f"{mlp}/norm"),
    *dense(layer + "mlp.dense_h_to_4h", f"{mlp}/mixer/in_proj", bias=True),
    *dense(layer + "mlp.dense_4h_to_h", f"{mlp}/mixer/out_proj", bias=True),
    *layer_norm("gpt_neox.final_layer_norm", "body/final_norm"),
    *([] if config.get("tie_word_embeddings", False) else [row("embed_out.weight", "head/table")]),
  ]
