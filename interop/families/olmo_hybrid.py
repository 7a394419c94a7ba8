"""OLMo Hybrid (Ai2 2025) as transformers saves it: gated delta nets before norms, attention and its MLP behind them.

The three convolutions of a delta net are cut into parts whose sizes need not be those of queries, keys and values: here
they are put together. Attention has positions only where the config
has `rope_parameters`. The norm inside of the delta net has an epsilon of 1e-5 whatever
`rms_norm_eps` is. The norm behind attention is saved as `feedforward_layer_norm`, and `post_attention_layernorm` too.
"""

from typing import Any

from hybrids.recipes import olmo_hybrid
from interop.config import Config
from interop.parts import attention, attention_fields, gated_mlp, table
from interop.rope import rope
from interop.rows import Row, dense, depthwise, join, row

LETTERS = 2
# initial values
IGNORED = "linear_a_log_max linear_a_log_min linear_dt_init_floor linear_dt_max linear_dt_min max_position_embeddings"
SKIPPED = ()
RENAMED = ((r"post_attention_layernorm", "feedforward_layer_norm"),)
KINDS = {"linear_attention": "d", "full_attention": "a"}


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  config.expect("hidden_act", "silu")
  heads, values, size, value_size = _sizes(config)
  depth, attends = config.get("num_hidden_layers"), config.get("num_attention_heads")
  kinds = config.get("layer_types", [list(KINDS)[i % 4 == 3] for i in range(depth)])
  turns = rope(config, config.get("hidden_size") // attends) if config.has("rope_parameters") else {}
  return olmo_hybrid.model(
    width=config.get("hidden_size"),
    depth=len(kinds),
    pattern="".join(KINDS[kind] for kind in kinds),
    inner=config.get("intermediate_size"),
    heads=attends,
    kv_heads=config.get("num_key_value_heads", attends),
    delta=dict(
      heads=heads,
      value_heads=values,
      head_size=size,
      expand_v=value_size / size,
      taps=config.get("linear_conv_kernel_dim", 4),
      negative_eigenvalues=config.get("linear_allow_neg_eigval", True),
    ),
    softmax=attention_fields(config, **turns),
    norm_eps=config.get("rms_norm_eps", 1e-6),
    tie=config.get("tie_word_embeddings", False),
  )


def _sizes(config: Config) -> tuple[int, int, int, int]:
  heads = config.get("linear_num_key_heads", config.get("num_attention_heads"))
  values = config.get("linear_num_value_heads", config.get("num_attention_heads"))
  size = config.get("linear_key_head_dim", int(0.75 * config.get("hidden_size") / heads))
  return heads, values, size, config.get("linear_value_head_dim", 2 * size)


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer, (heads, values, size, value_size) = "model.layers.{i}.", _sizes(config)
  net, bias = layer + "linear_attn.", config.get("attention_bias", False)
  convs = [f"{net}{name}_conv1d.weight" for name in "qkv"]
  parts = join(heads * size, heads * size, values * value_size, axis=-1)
  return [
    row("model.embed_tokens.weight", "embed/embedding"),
    row(layer + "attention_layer_norm.weight", "d/norm/scale"),
    *(line for name in "qkv" for line in dense(f"{net}{name}_proj", f"d/mixer/qkv/{name}_proj")),
    row(convs, "d/mixer/qkv/conv/kernel", depthwise, parts),
    *(line for name in "abg" for line in dense(f"{net}{name}_proj", f"d/mixer/{name}_proj")),
    row(net + "A_log", "d/mixer/A_log"),
    row(net + "dt_bias", "d/mixer/dt_bias"),
    row(net + "o_norm.weight", "d/mixer/gated_norm/scale"),
    *dense(net + "o_proj", "d/mixer/out_proj"),
    *attention(layer + "self_attn", "a/mixer", bias=bias),
    *(row(f"{layer}self_attn.{name}_norm.weight", f"a/mixer/{name}_norm/scale") for name in "qk"),
    row(layer + "feedforward_layer_norm.weight", "-a/norm/scale"),
    row(layer + "post_feedforward_layernorm.weight", "+/norm/scale"),
    *gated_mlp(layer + "mlp", "-+/mixer"),
    row("model.norm.weight", "body/final_norm/scale"),
    *table(config, tie=False),
  ]
