"""Zamba2 (Glorioso et al. 2024) as transformers saves it: Mamba-2, and shared blocks that take turns.

As in Zamba a block reads the stream beside the embedding, and what it returns is added to the input of the next Mamba-2
alone. Each use changes the block's maps by low-rank adapters of its own; those of gate and input share their first
factor. The step is clipped to (time_step_min, ∞), and the epsilon of Mamba-2's norm
is 1e-5 whatever `rms_norm_eps` is.
"""

from typing import Any

from hybrids.recipes import zamba
from interop.config import Config
from interop.parts import attention, mamba2
from interop.rope import rope
from interop.rows import Row, dense, row, split, stack, turn

# initial values, sizes that follow from others, and how transformers runs it
IGNORED = (
  "attention_hidden_size chunk_size ffn_hidden_size hybrid_layer_ids kv_channels mamba_headdim max_position_embeddings "
  "num_logits_to_keep num_query_groups time_step_floor time_step_max use_mamba_kernels use_mem_eff_path "
  "use_shared_mlp_adapter"
)
SKIPPED = ()


def _kinds(config: Config) -> list[bool]:
  """Returns whether each layer has a shared block."""
  run = lambda count: ["mamba"] * count
  default = run(1) + (run(5) + ["hybrid"]) * 7 + run(4) + ["hybrid"] + run(3) + ["hybrid"] + run(2)
  return [kind == "hybrid" for kind in config.get("layers_block_type", default)]


def _blocks(config: Config) -> int:
  return config.expect("num_mem_blocks", *range(1, 1 + len(zamba.BLOCKS)))


def numbers(config: Config) -> list[int]:
  """Returns their layer of each of our letters."""
  return [i for i, shares in enumerate(_kinds(config)) for _ in range(3 if shares else 1)]


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  for key in ("add_bias_linear", "use_long_context"):
    config.expect(key, False)
  config.expect("tie_word_embeddings", True)
  config.expect("hidden_act", "gelu")
  width, heads, kinds = config.get("hidden_size"), config.get("num_attention_heads"), _kinds(config)
  if len(kinds) != config.get("num_hidden_layers"):
    raise config.refuse("num_hidden_layers", f"{len(kinds)}, the number of kinds in layers_block_type")
  size = config.get("attention_head_dim", 2 * width // heads)
  turns, inner = rope(config, size), config.get("mamba_expand", 2) * width
  return zamba.zamba2(
    width=width,
    depth=len(kinds),
    shared=[layer for layer, shares in enumerate(kinds) if shares],
    heads=heads,
    inner=config.get("intermediate_size", 4 * width),
    blocks=_blocks(config),
    rank=config.get("adapter_rank", 128),
    adapted_attention=config.get("use_shared_attention_adapter", False),
    ssm=dict(
      inner=inner,
      head_size=inner // config.get("n_mamba_heads", 8),
      state=config.get("mamba_d_state", 64),
      groups=config.get("mamba_ngroups", 1),
      taps=config.get("mamba_d_conv", 4),
      conv_bias=config.get("use_conv_bias", True),
      dt_least=config.get("time_step_min", 1e-3),
      norm_eps=1e-5,
    ),
    softmax=dict(
      kv_heads=config.get("num_key_value_heads", heads),
      head_size=size,
      **(turns if config.get("use_mem_rope", False) else {}),
    ),
    norm_eps=config.get("rms_norm_eps", 1e-5),
  )


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer, conv_bias, blocks = "model.layers.{i}.", config.get("use_conv_bias", True), _blocks(config)
  hybrids = [i for i, shares in enumerate(_kinds(config)) if shares]
  shared = [_block(config, hybrids[block], block, range(block, len(hybrids), blocks)) for block in range(blocks)]
  return [
    row("model.embed_tokens.weight", "embed/embedding"),
    row(layer + "input_layernorm.weight", "m/norm/scale"),
    *mamba2(layer + "mamba", "m/mixer", bias=False, conv_bias=conv_bias),
    row(layer + "mamba_decoder.input_layernorm.weight", "g/norm/scale"),
    *mamba2(layer + "mamba_decoder.mamba", "g/mixer", bias=False, conv_bias=conv_bias),
    *dense(layer + "linear", "g/fed_proj"),
    *(line for lines in shared for line in lines),
    row("model.final_layernorm.weight", "body/final_norm/scale"),
  ]


def _block(config: Config, first: int, block: int, uses: range) -> list[Row]:
  """Returns the rows of a shared block, stored in its first layer, and of the adapters of its uses."""
  theirs, letters = f"model.layers.{first}.shared_transformer.", zamba.BLOCKS[block]
  inner = config.get("intermediate_size", 4 * config.get("hidden_size"))
  softmax, mlp = f"body/{letters[0]}/", f"body/{letters[1]}/"
  halves = lambda where, leaf: [f"{mlp}{where}mixer/{name}_proj/kernel{leaf}" for name in ("gate", "in")]
  adapter = lambda path, factor: [f"{theirs}{path}_adapter_list.{use}.{factor}.weight" for use in uses]
  found = [
    row(theirs + "input_layernorm.weight", softmax + "mixer/norm/scale"),
    *attention(theirs + "self_attn", softmax + "mixer/inner"),
    row(theirs + "pre_ff_layernorm.weight", mlp + "norm/scale"),
    row(theirs + "feed_forward.gate_up_proj.weight", halves("", ""), split(inner, inner), turn),
    *dense(theirs + "feed_forward.down_proj", mlp + "mixer/out_proj"),
    row(adapter("feed_forward.gate_up_proj", 0), mlp + "lora/mixer/A", turn, stack),
    row(adapter("feed_forward.gate_up_proj", 1), halves("lora/", "/B"), turn, stack, split(inner, inner, axis=-1)),
  ]
  for name in "qkv" if config.get("use_shared_attention_adapter", False) else "":
    for factor, leaf in enumerate("AB"):
      ours = f"{softmax}lora/mixer/inner/{name}_proj/kernel/{leaf}"
      found.append(row(adapter(f"self_attn.linear_{name}", factor), ours, turn, stack))
  return found
